# Turns rows of variants.cmake into SPIR-V, and SPIR-V into one C file.
#   knit_embed_shaders(<variable>): the path of that file, made when knit is built.
# Per row: KNIT_GLSLANG, KNIT_SPIRV_OPT, KNIT_SPIRV_VAL, which the caller has found; only what a changed file is
# part of is made anew.
include(${CMAKE_CURRENT_LIST_DIR}/variants.cmake)

set(KNIT_SHADER_FOLDER ${CMAKE_CURRENT_LIST_DIR})
set(KNIT_SHADER_NEEDS dot coopmat subgroup_control)

# One row: its SPIR-V, and its line "name needs... path" of the list that embed.c reads.
function(knit_shader row out_file out_line)
	string(REGEX MATCHALL "[|]" bars "${row}")
	list(LENGTH bars count)
	if(NOT count EQUAL 3)
		message(FATAL_ERROR "variants.cmake: not name | source | defines | needs: ${row}")
	endif()
	string(REGEX MATCH "^([^|]*)[|]([^|]*)[|]([^|]*)[|]([^|]*)$" all "${row}")
	string(STRIP "${CMAKE_MATCH_1}" name)
	string(STRIP "${CMAKE_MATCH_2}" source)
	separate_arguments(defines UNIX_COMMAND "${CMAKE_MATCH_3}")
	separate_arguments(needs UNIX_COMMAND "${CMAKE_MATCH_4}")
	if(NOT name MATCHES "^[a-z][a-z0-9_]*$" OR NOT EXISTS ${KNIT_SHADER_FOLDER}/${source})
		message(FATAL_ERROR "variants.cmake: a bad name or no such source: ${row}")
	endif()
	foreach(word ${needs})
		if(NOT word IN_LIST KNIT_SHADER_NEEDS)
			message(FATAL_ERROR "variants.cmake: needs are of: ${KNIT_SHADER_NEEDS}: ${row}")
		endif()
	endforeach()
	list(TRANSFORM defines PREPEND -D)

	set(folder ${CMAKE_CURRENT_BINARY_DIR}/shaders)
	set(spv ${folder}/${name}.spv)
	set(checks --target-env vulkan1.2 --uniform-buffer-standard-layout)
	add_custom_command(OUTPUT ${spv}.raw
		COMMAND ${KNIT_GLSLANG} --quiet -V --target-env vulkan1.2 -I${KNIT_SHADER_FOLDER} ${defines}
			--depfile ${spv}.d -o ${spv}.raw ${KNIT_SHADER_FOLDER}/${source}
		DEPENDS ${KNIT_SHADER_FOLDER}/${source}
		DEPFILE ${spv}.d COMMENT "Shader ${name}" VERBATIM)
	set(passes -O)
	set(last ${CMAKE_COMMAND} -E rename ${spv}.opt ${spv})
	set(tool "")
	# Checked as what the tools know, then rewritten. The optimizer of Debian 12 ends where it simplifies sums of matrices.
	if(coopmat IN_LIST needs)
		set(passes --eliminate-dead-branches --merge-return --inline-entry-points-exhaustive
			--eliminate-dead-functions --private-to-local
			--eliminate-local-single-block --eliminate-local-single-store --eliminate-dead-code-aggressive
			--scalar-replacement=100 --convert-local-access-chains --eliminate-local-multi-store --ccp
			--eliminate-dead-branches --eliminate-dead-code-aggressive)
		set(last knit-coopmat ${spv}.opt ${spv})
		set(tool knit-coopmat)
	endif()
	# What is not valid never gets its name. The optimizer's own check has no word for our layout of blocks but a laxer one.
	add_custom_command(OUTPUT ${spv}
		COMMAND ${KNIT_SPIRV_OPT} --target-env=vulkan1.2 --scalar-block-layout ${passes} ${spv}.raw -o ${spv}.opt
		COMMAND ${KNIT_SPIRV_VAL} ${checks} ${spv}.opt
		COMMAND ${last}
		DEPENDS ${spv}.raw ${tool} COMMENT "Checking ${name}" VERBATIM)
	list(JOIN needs "," needs)
	set(${out_file} ${spv} PARENT_SCOPE)
	set(${out_line} "${name} ${needs}| ${spv}" PARENT_SCOPE)
endfunction()

function(knit_embed_shaders out)
	set(files "")
	set(lines "")
	set(names "")
	foreach(row ${KNIT_SHADER_VARIANTS})
		knit_shader("${row}" file line)
		if(file IN_LIST files)
			message(FATAL_ERROR "variants.cmake: a second row of that name: ${row}")
		endif()
		list(APPEND files ${file})
		string(APPEND lines "${line}\n")
	endforeach()
	set(folder ${CMAKE_CURRENT_BINARY_DIR}/shaders)
	file(MAKE_DIRECTORY ${folder})
	file(CONFIGURE OUTPUT ${folder}/list.txt CONTENT "${lines}" @ONLY) # written when it changes
	add_executable(knit-coopmat ${KNIT_SHADER_FOLDER}/coopmat.c)
	add_executable(knit-embed-shaders ${KNIT_SHADER_FOLDER}/embed.c)
	add_custom_command(OUTPUT ${folder}/shaders.c
		COMMAND knit-embed-shaders ${folder}/list.txt ${folder}/shaders.c
		DEPENDS ${files} ${folder}/list.txt COMMENT "Embedding shaders" VERBATIM)
	set(${out} ${folder}/shaders.c PARENT_SCOPE)
endfunction()
