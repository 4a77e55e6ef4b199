/* Profiles, subjects, and all figures. */

function table(heads, lines, lefts) {
	const cell = (tag, v, i) => el(tag, {class: i < lefts ? 'left' : null}, v instanceof Node ? v : document.createTextNode(v));
	return el('table', {}, el('thead', {}, el('tr', {}, ...heads.map((h, i) => cell('th', h, i)))),
		el('tbody', {}, ...lines.map(l => el('tr', {}, ...l.map((v, i) => cell('td', v, i))))));
}

const stepHues = new Map();
function stepColor(op) {
	if (!stepHues.has(op))
		stepHues.set(op, Math.round(212 + stepHues.size * 137.508) % 360);
	return `hsl(${stepHues.get(op)} var(--sat) var(--lit))`;
}

/* "linear+linear+add" -> "2 linear, add" */
function partsText(parts) {
	const counts = new Map();
	for (const p of parts ? parts.split('+') : [])
		counts.set(p, (counts.get(p) || 0) + 1);
	return [...counts].map(([p, n]) => n > 1 ? `${n} ${p}` : p).join(', ');
}

function drawProfile(p) {
	const width = 1100, high = 30, total = p.steps_s + Math.max(0, p.wall_s - p.inside_s) || 1;
	const picture = svg('svg', {viewBox: `0 0 ${width} ${high}`, role: 'img', 'aria-label': 'share of each kind of step'});
	let at = 0;
	for (const k of p.kinds) {
		const w = k.median_s / total * width;
		const part = svg('rect', {x: at, y: 2, width: Math.max(0.5, w - 1), height: high - 4, fill: stepColor(k.op), class: 'part'});
		told(part, k.op, [partsText(k.parts), `${k.calls} calls, ${seconds(k.median_s)}, ${percent(k.median_s / p.steps_s)} of all steps`]);
		picture.append(part);
		if (w > 8 * k.op.length)
			picture.append(say(at + 6, high / 2 + 4, k.op, {fill: '#fff', style: 'fill:#fff;pointer-events:none'}));
		at += w;
		drawn.parts += 1;
	}
	if (p.wall_s > p.inside_s)
		picture.append(told(svg('rect', {x: at, y: 2, width: Math.max(0, width - at), height: high - 4, class: 'peak'}), 'between steps',
			[seconds(p.wall_s - p.inside_s) + ': writing inputs, waiting, reading logits, and looking at the clock']));
	const lines = p.kinds.map(k => [
		el('span', {}, el('span', {class: 'key', style: 'background:' + stepColor(k.op)}), k.op,
			k.parts ? el('div', {class: 'parts', text: partsText(k.parts)}) : null),
		String(k.calls), seconds(k.median_s), seconds(k.median_s / k.calls), percent(k.median_s / p.steps_s),
		num(k.bytes / k.median_s / 1e9), num(k.flops / k.median_s / 1e9),
		k.of_peak > 0 ? el('span', {}, el('span', {class: 'meter', style: `width:${Math.min(80, k.of_peak * 80)}px;background:var(--accent)`}), percent(k.of_peak)) : '-',
	]);
	return el('div', {class: 'card'}, el('h3', {text: `${p.test}, ${p.subject}: one run of ${p.tokens} token${p.tokens === 1 ? '' : 's'} takes ${seconds(p.wall_s)}`}), picture,
		table(['step', 'calls', 'time', 'each', 'share', 'GB/s', 'GFLOP/s', 'of the nearer peak'], lines, 1));
}

function drawProfiles() {
	drawn.parts = 0;
	$('profiles').hidden = profiles.length === 0;
	$('profile-list').replaceChildren(...profiles.map(drawProfile));
}

const classes = [['weight_bytes', 'weights', 212], ['packed_bytes', 'packed layouts', 190], ['adapter_bytes', 'adapters', 265], ['state_bytes', 'keys and values', 150],
	['arena_bytes', 'activations', 28], ['io_bytes', 'inputs and outputs', 330]];

function memoryBar(m, most) {
	const width = 1100, picture = svg('svg', {viewBox: `0 0 ${width} 22`, role: 'img', 'aria-label': 'memory by class'});
	let at = 0;
	for (const [key, name, hue] of classes) {
		const w = (m[key] || 0) / most * width;
		picture.append(told(svg('rect', {x: at, y: 2, width: Math.max(0, w - (w > 2 ? 1 : 0)), height: 18, fill: `hsl(${hue} var(--sat) var(--lit))`, class: 'memory'}), name, [megabytes(m[key])]));
		at += w;
	}
	return picture;
}

/* The most that there was, and of it what is the process's own and what are pages of files. */
function resident(r) {
	const m = r.resident;
	if (!m || !(m.peak_bytes > 0))
		return '-';
	return el('span', {}, megabytes(m.peak_bytes), el('div', {class: 'parts', text: `${megabytes(m.anon_bytes)} own, ${megabytes(m.file_bytes)} of files`}));
}

function drawSubjects() {
	const of = subjects.map(s => rows.find(r => r.subject === s));
	const sum = m => classes.reduce((t, c) => t + (m[c[0]] || 0), 0);
	const known = of.filter(r => r.memory), most = Math.max(1, ...known.map(r => sum(r.memory)));
	const lines = of.map(r => [
		el('span', {}, el('span', {class: 'key', style: 'background:' + color(r.subject)}), r.subject, el('div', {class: 'parts', text: [r.version, r.driver].filter(Boolean).join('; ')})),
		seconds(r.load_s), seconds(r.first_token_cold_s), seconds(r.first_token_from_disk_s), seconds(r.first_token_warm_s),
		r.memory ? megabytes(sum(r.memory)) : '-', resident(r),
		r.check ? el('span', {class: wrong(r) ? 'bad' : null, text: (r.check.nmse === null ? 'not a number' : r.check.nmse.toExponential(1)) + (wrong(r) ? ' WRONG' : '')}) : 'not checked',
		r.check ? `${Math.round(r.check.top1 * r.check.rows)} of ${r.check.rows}` : '-', r.check ? r.check.reference : '-']);
	const bars = known.map(r => el('div', {}, el('h3', {text: `Memory, ${r.subject}: ${megabytes(sum(r.memory))} planned`}), memoryBar(r.memory, most)));
	$('subjects').replaceChildren(el('div', {class: 'card wide'}, table(['subject', 'load', 'first token cold', 'from disk', 'warm', 'planned', 'resident', 'NMSE', 'same first choice', 'reference'], lines, 1)),
		known.length ? el('div', {class: 'card'}, ...bars, el('ul', {class: 'legend'}, ...classes.map(([key, name, hue]) => el('li', {},
			el('span', {class: 'key', style: `background:hsl(${hue} var(--sat) var(--lit))`}), name, known.length === 1 ? ' ' + megabytes(known[0].memory[key] || 0) : '')))) : '');
	drawn.subjects = lines.length;
}

const sizeText = n => n < 2 ** 20 ? Math.round(n / 1024) + ' KiB' : n < 2 ** 30 ? Math.round(n / 2 ** 20) + ' MiB' : num(n / 2 ** 30) + ' GiB';
const pair = (read, copy) => `${num(read)} / ${num(copy)}`;

/* One line for the host's processor, one for each other device. */
function drawPeaks() {
	const p = rows[0].peaks, lines = [], sizes = list => el('span', {}, ...list.map(s => el('div', {text: `${sizeText(s.bytes)}: ${pair(s.read_gb_per_s, s.copy_gb_per_s)}`})));
	const how = (v, by) => v > 0 ? num(v) + (by ? ` (${by})` : '') : '-';
	const latency = r => [seconds(r.peaks.submit_s), seconds(r.peaks.step_s)];
	const of = subjects.map(s => rows.find(r => r.subject === s)), host = of.find(r => r.peaks.read_gb_per_s === p.host_read_gb_per_s && r.peaks.submit_s > 0);
	if (p.host_read_gb_per_s > 0)
		lines.push([rows[0].machine, pair(p.host_read_gb_per_s, p.host_copy_gb_per_s), sizes(p.host_caches), how(p.host_f32_gflop_per_s), how(p.host_f16_gflop_per_s, p.host_f16_by),
			how(p.host_int8_gop_per_s, p.host_int8_by), ...(host ? latency(host) : ['-', '-'])]);
	for (const r of of.filter(one => one !== host && (one.peaks.device_sizes || one.peaks.submit_s > 0))) {
		const d = r.peaks, all = d.device_sizes || [], last = all[all.length - 1];
		lines.push([el('span', {}, r.device, el('div', {class: 'parts', text: [r.driver, d.device_missing, d.device_not_measured].filter(Boolean).join('; ')})),
			last ? pair(last.read_gb_per_s, last.copy_gb_per_s) : '-', sizes(all.slice(0, -1)), how(d.device_f32_gflop_per_s),
			d.device_matrix_gflop_per_s > 0 ? `${num(d.device_f16_gflop_per_s)}; ${num(d.device_matrix_gflop_per_s)} (matrices)` : how(d.device_f16_gflop_per_s),
			how(d.device_int8_gop_per_s), ...latency(r)]);
	}
	$('peaks').replaceChildren(lines.length ? table(['', 'memory, read / copied, GB/s', 'smaller sizes', 'f32, GFLOP/s', 'f16, GFLOP/s', 'int8, GOP/s', 'empty run', 'a step'], lines, 1)
		: el('p', {class: 'hint', text: 'Nothing: --no-peaks.'}));
	drawn.peaks = lines.length;
}

function drawTable() {
	const lines = rows.map(r => [r.test, r.subject, num(r.tokens_per_s.median), `${num(r.tokens_per_s.lo)} to ${num(r.tokens_per_s.hi)}`, String(r.seconds.length),
		num(r.gb_per_s), num(r.gflop_per_s), r.bound_by || '-', percent(r.of_peak),
		wrong(r) ? 'WRONG' : r.ratio_to_first ? `${r.ratio_to_first.median.toFixed(3)} (${r.ratio_to_first.lo.toFixed(3)} to ${r.ratio_to_first.hi.toFixed(3)})` : '']);
	$('table').replaceChildren(table(['test', 'subject', 'tokens/s', '95 % interval', 'runs', 'GB/s', 'GFLOP/s', 'binds', 'of peak', 'ratio to first'], lines, 2));
	drawn.rows = lines.length;
}
