# Makes one C file of the page: style and scripts go into page.html, which is cut where the data goes.
#   cmake -DFOLDER=... -DOUT=... -DSCRIPTS=a.js,b.js -DHEADER=page.h -DNAME=prefix -P embed.cmake
# Everything is done on hexadecimal text, so that no byte of the page means anything to CMake.

function(read_hex name out)
	file(READ ${FOLDER}/${name} text HEX)
	set(${out} ${text} PARENT_SCOPE)
endfunction()

function(to_hex text out)
	file(WRITE ${OUT}.marker "${text}")
	file(READ ${OUT}.marker hex HEX)
	file(REMOVE ${OUT}.marker)
	set(${out} ${hex} PARENT_SCOPE)
endfunction()

function(to_array hex out)
	string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
	string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes "${bytes}")
	set(${out} "${bytes}" PARENT_SCOPE)
endfunction()

read_hex(page.html page)
read_hex(style.css style)
set(scripts "")
string(REPLACE "," ";" SCRIPTS "${SCRIPTS}")
foreach(name ${SCRIPTS})
	read_hex(${name} script)
	string(APPEND scripts ${script})
endforeach()
foreach(pair "@STYLE@;style" "@SCRIPT@;scripts")
	list(GET pair 0 marker)
	list(GET pair 1 variable)
	to_hex("${marker}" hex)
	string(FIND "${page}" "${hex}" at)
	if(at EQUAL -1)
		message(FATAL_ERROR "page.html has no ${marker}")
	endif()
	string(REPLACE "${hex}" "${${variable}}" page "${page}")
endforeach()

to_hex("@DATA@" hex)
string(FIND "${page}" "${hex}" at)
if(at EQUAL -1)
	message(FATAL_ERROR "page.html has no @DATA@")
endif()
string(SUBSTRING "${page}" 0 ${at} before)
string(LENGTH "${hex}" length)
math(EXPR at "${at} + ${length}")
string(SUBSTRING "${page}" ${at} -1 after)
to_array("${before}" before)
to_array("${after}" after)
file(WRITE ${OUT} "/* Made by embed.cmake from a page, its style and scripts. */
#include \"${HEADER}\"

const unsigned char ${NAME}_before[] = {
${before}};
const size_t ${NAME}_before_bytes = sizeof ${NAME}_before;
const unsigned char ${NAME}_after[] = {
${after}};
const size_t ${NAME}_after_bytes = sizeof ${NAME}_after;
")
