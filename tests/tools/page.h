/* Owns pages of HTML under test: a folder for them, their data element, and a headless browser that draws them. */
#ifndef KNIT_TEST_PAGE_H
#define KNIT_TEST_PAGE_H

#include "command.h"

#include <cjson/cJSON.h>

typedef struct page_file { char folder[40], path[80]; } page_file;

/* A folder of its own, and the place of a page in it. */
void page_begin(page_file *p);
void page_end(page_file *p);
/* The whole page, terminated; the caller frees it. */
char *page_load(const page_file *p);
void page_save(const page_file *p, const char *text);

unsigned page_count(const char *text, const char *part);
/* Two scripts, a policy, and nothing that a browser would fetch. */
void page_check_alone(const char *text);
/* What lies in the page's data element, parsed; the caller deletes it. */
cJSON *page_data(const char *text);

/* NULL where there is no Chromium, which it says in a line. */
const char *page_browser(void);
/* The page's elements after its script has run. What goes to the browser's console goes to err. fragment: "" or "#...". */
void page_dump(const page_file *p, const char *browser, const char *fragment, command_result *out);
/* The page drew without an error, in its own words and the console's. */
void page_check_sound(const command_result *dump);
/* The page found itself broken. */
void page_check_broken(const command_result *dump);
/* The number after "what=" in the body's data-drawn. */
unsigned page_drawn(const char *dom, const char *what);

#endif
