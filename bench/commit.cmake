# Writes OUT, a header with the commit that is built, when it has changed. Without git: "unknown".
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=10 OUTPUT_VARIABLE commit
	OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed OR NOT commit)
	set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define KNIT_COMMIT \"${commit}\"\n")
