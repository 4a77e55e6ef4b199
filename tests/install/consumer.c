/* A user of the installed library, compiled as C and as C++: builds y = 2 (a + b) and runs it. */
#include <knit.h>
#include <stdio.h>
#include <string.h>

int main(void) {
	const float a[3] = {1.0f, 2.0f, 3.0f}, b[3] = {10.0f, 20.0f, 30.0f};
	float y[3];
	knit_diag diag;
	knit_context *ctx = NULL;
	knit_graph *g = NULL;
	knit_program *program = NULL;
	knit_session *session = NULL;
	knit_compile_desc desc;
	knit_dim n = knit_n(3);
	int ok;

	memset(&desc, 0, sizeof desc); /* zero is the default of every field, today's and later ones */
	desc.device = "cpu";
	diag.text[0] = 0;
	ok = knit_context_create(NULL, &ctx) == KNIT_OK && knit_graph_create(ctx, &g) == KNIT_OK;
	if (ok) {
		const knit_tensor x = knit_input(g, "a", KNIT_F32, 1, &n), z = knit_input(g, "b", KNIT_F32, 1, &n);

		knit_output(g, "y", knit_scale(g, knit_add(g, x, z), 2.0f));
		ok = knit_compile(g, &desc, &program, &diag) == KNIT_OK && knit_session_create(program, &session, &diag) == KNIT_OK;
	}
	ok = ok && knit_session_write(session, "a", a, sizeof a) == KNIT_OK &&
	     knit_session_write(session, "b", b, sizeof b) == KNIT_OK && knit_session_run(session) == KNIT_OK &&
	     knit_session_read(session, "y", y, sizeof y) == KNIT_OK;
	if (ok)
		printf("%g %g %g\n", (double)y[0], (double)y[1], (double)y[2]);
	else
		fprintf(stderr, "failed: %s\n", diag.text);
	ok = ok && y[0] == 22.0f && y[1] == 44.0f && y[2] == 66.0f;
	knit_session_destroy(session);
	knit_program_release(program);
	knit_graph_destroy(g);
	knit_context_destroy(ctx);
	return !ok;
}
