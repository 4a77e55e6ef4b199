/* Draws everything, and leaves in the body's data-drawn what was drawn. */

function bucketName(about) {
	if (about.hi === undefined)
		return 'any number of tokens';
	return about.hi === 1 ? 'one token' : 'prompt, ' + about.hi + ' tokens at once';
}
function drawBuckets() {
	$('buckets').replaceChildren(...report.buckets.map((b, i) => el('button', {type: 'button', text: bucketName(b.about),
		'aria-pressed': String(i === bucket), onclick: () => {
			bucket = i;
			drawBuckets();
			drawTimeline();
			drawTables();
			note_drawn();
		}})));
}
function note_drawn() {
	const d = graph.drawn;
	document.body.dataset.drawn = `panels=${d.panels} steps=${d.steps} edges=${d.edges} chips=${d.chips} shelf=${d.shelf} ` +
		`blocks=${timeline.drawn} tables=${$('table-list').querySelectorAll('tbody tr').length} cards=${$('cards').children.length}`;
}

function draw() {
	bucket = report.buckets.length - 1; /* the largest run: where memory is needed */
	drawHead();
	drawCards();
	drawBuckets();
	drawGraph();
	wireTimeline();
	drawTimeline();
	drawTables();
	note_drawn();
}
try {
	draw();
} catch (e) {
	trouble(e && e.stack ? e.stack : e);
}
