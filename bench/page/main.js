/* Draws everything, and leaves in the body's data-drawn what was drawn. */

function drawHead() {
	const r = rows[0], best = kind => rows.filter(one => one.subject === r.subject && one[kind] && one.depth === Math.min(...rows.map(o => o.depth)))[0];
	const prefill = best('prompt'), decode = best('made'), parts = [];
	const others = subjects.filter(s => s !== r.subject);
	$('title').textContent = r.model;
	$('title').classList.toggle('long', r.model.length > 60);
	document.title = 'knit bench: ' + r.model;
	if (prefill)
		parts.push(`reads a prompt at ${num(prefill.tokens_per_s.median)} tokens per second`);
	if (decode) {
		const limited = decode.bound_by === 'memory' && decode.of_peak > 0;
		parts.push(`makes ${num(decode.tokens_per_s.median)} tokens per second` + (!limited ? '' : decode.of_peak > 1
			? ', more than memory alone could feed: weights stay in a cache'
			: `, which is ${percent(decode.of_peak)} of what the machine's memory can feed`));
	}
	$('lead').textContent = `${r.subject} ${parts.join(' and ')}.` + (others.length ? ` Beside it: ${others.join(', ')}, measured in turns.` : '');
	$('where').textContent = `${r.machine}; ${r.system}; ${r.threads} thread${r.threads === 1 ? '' : 's'}; ${megabytes(r.file_bytes)}; keys and values ${r.kv}; batch ${r.batch}; ${r.date}`;
	$('warnings').replaceChildren(...data.warnings.map(w => el('li', {text: w})));
	$('about').textContent = `knit bench ${r.flags}; commit ${r.commit}; seed ${r.seed}. How each number is made: bench/README.md.`;
}

try {
	drawHead();
	drawBars();
	drawRoofline();
	drawProfiles();
	drawSubjects();
	drawTable();
	document.body.dataset.drawn = Object.entries(drawn).map(([k, v]) => `${k}=${v}`).join(' ');
} catch (e) {
	trouble(e && e.stack ? e.stack : e);
}
