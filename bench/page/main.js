/* Draws everything, and leaves in the body's data-drawn what was drawn. */

/* What memory gave at the two ends of the run, where these differ by more than a tenth; the better one is what rows are held against. */
function drift(r) {
	const p = r.peaks, before = p.host_read_gb_per_s_before;
	return before > 0 && p.read_gb_per_s === p.host_read_gb_per_s && p.host_read_gb_per_s > 1.1 * before ? [before, p.host_read_gb_per_s] : null;
}

function ofMemory(r) {
	if (r.bound_by !== 'memory' || !(r.of_peak > 0))
		return '';
	const ends = drift(r);
	if (ends)
		return `, ${percent(r.of_peak)} of what the machine's memory gave at best: it was read at ${num(ends[0])} GB/s at one end of the run and at ${num(ends[1])} at the other, so that is a rough figure`;
	return r.of_peak > 1 ? ', more than memory alone could feed: weights stay in a cache' : `, which is ${percent(r.of_peak)} of what the machine's memory can feed`;
}

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
		parts.push(`makes ${num(decode.tokens_per_s.median)} tokens per second` + ofMemory(decode));
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
	drawPeaks();
	drawProfiles();
	drawSubjects();
	drawTable();
	document.body.dataset.drawn = Object.entries(drawn).map(([k, v]) => `${k}=${v}`).join(' ');
} catch (e) {
	trouble(e && e.stack ? e.stack : e);
}
