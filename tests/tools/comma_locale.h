/* Owns the choice of a locale that writes numbers with a comma. */
#ifndef KNIT_TEST_COMMA_LOCALE_H
#define KNIT_TEST_COMMA_LOCALE_H

#include <locale.h>
#include <stdbool.h>
#include <stdio.h>

/* Sets one; false with a SKIP line where none is installed. setlocale(LC_NUMERIC, "C") ends it. */
static inline bool comma_locale(void) {
	static const char *const locales[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE", "fr_FR"};

	for (size_t i = 0; i < sizeof locales / sizeof locales[0]; ++i)
		if (setlocale(LC_NUMERIC, locales[i]))
			return true;
	printf("SKIP: no locale with a decimal comma is installed\n");
	return false;
}

#endif
