/* Bars with intervals, and the roofline. */

/* What the machine would allow: tokens per second at the peak of what binds; 0: not known. */
function bestRate(r) {
	return r.of_peak > 0 && r.bound_by && r.bound_by !== 'launch' ? r.tokens_per_s.median / r.of_peak : 0;
}
const tokensOf = r => r.prompt + r.made;

function drawBars() {
	const width = 1100, left = 170, right = 320, high = 24;
	let bars = 0;
	const cards = tests.map(test => {
		const of = rows.filter(r => r.test === test);
		const most = Math.max(...of.map(r => Math.max(r.tokens_per_s.hi, tokensOf(r) / Math.min(...r.seconds), Math.min(bestRate(r), 3 * r.tokens_per_s.hi))));
		const x = v => left + v / most * (width - left - right);
		const picture = svg('svg', {viewBox: `0 0 ${width} ${of.length * (high + 10) + 6}`, role: 'img', 'aria-label': 'tokens per second of ' + test});
		of.forEach((r, i) => {
			const y = 4 + i * (high + 10), rate = r.tokens_per_s, middle = y + high / 2, best = bestRate(r);
			const ratio = r.ratio_to_first;
			if (best > 0)
				picture.append(svg('rect', {class: 'peak', x: left, y: y + high - 5, height: 3, width: Math.max(0, x(Math.min(best, most)) - left)}));
			const bar = svg('rect', {x: left, y: y + 2, height: high - 8, width: Math.max(1, x(rate.median) - left), rx: 3, class: 'bar',
				fill: color(r.subject), opacity: wrong(r) ? 0.3 : 1});
			told(bar, r.subject + ', ' + test, [`median ${num(rate.median)} tokens/s, 95 % interval ${num(rate.lo)} to ${num(rate.hi)}`,
				`${r.seconds.length} runs after ${r.warm_up} to warm up, ${rate.outliers} far from the others${r.steady ? '' : '; not steady'}`,
				r.gb_per_s > 0 ? `${num(r.gb_per_s)} GB/s, ${num(r.gflop_per_s)} GFLOP/s` : '',
				r.bound_by ? `${r.bound_by} binds: ${percent(r.of_peak)} of its peak` : '']);
			picture.append(bar);
			for (const s of r.seconds) {
				const at = x(tokensOf(r) / s);
				picture.append(svg('line', {class: 'run', x1: at, x2: at, y1: y + high - 7, y2: y + high - 1}));
			}
			picture.append(svg('path', {class: 'bracket', d: `M${x(rate.lo)},${middle - 7}v10M${x(rate.lo)},${middle - 2}H${x(rate.hi)}M${x(rate.hi)},${middle - 7}v10`}));
			picture.append(say(left - 10, middle + 3, r.subject, {'text-anchor': 'end'}));
			picture.append(svg('text', {x: width - right + 14, y: middle + 3},
				svg('tspan', {class: 'strong', 'font-weight': 650, text: num(rate.median)}),
				svg('tspan', {fill: 'var(--soft)', text: wrong(r) ? '  WRONG, see below' : (r.of_peak > 0 ? `  ${percent(r.of_peak)} of ${r.bound_by === 'compute' ? 'compute' : 'memory'}` : '') +
					(ratio ? `  ${ratio.median.toFixed(2)} x (${ratio.lo.toFixed(2)}-${ratio.hi.toFixed(2)})` : '')})));
			++bars;
		});
		return el('div', {class: 'card'}, el('h3', {text: test + (of.length > 1 ? ` (the factor is to ${of[0].subject})` : '')}), picture);
	});
	$('bars').replaceChildren(...cards);
	drawn.bars = bars;
}

/* ---- roofline ---- */

const perByte = r => {
	const moved = r.per_token.weight_bytes + r.per_token.state_bytes;
	return moved > 0 ? r.per_token.flops / moved : 0;
};

function ticks(lo, hi) {
	const out = [];
	for (let e = Math.floor(Math.log10(lo)); e <= Math.ceil(Math.log10(hi)); ++e)
		if (10 ** e >= lo * 0.999 && 10 ** e <= hi * 1.001)
			out.push(10 ** e);
	return out;
}

function roofs() {
	const p = rows[0].peaks, out = [];
	const flat = Math.max(p.host_f32_gflop_per_s, p.host_int8_gop_per_s);
	if (p.host_read_gb_per_s > 0)
		out.push({name: `memory ${num(p.host_read_gb_per_s)} GB/s`, slope: p.host_read_gb_per_s, flat, main: true});
	p.host_caches.forEach((c, i) => {
		if (c.read_gb_per_s > p.host_read_gb_per_s * 1.2)
			out.push({name: `${['L1', 'L2', 'last-level'][i]} cache ${num(c.read_gb_per_s)} GB/s`, slope: c.read_gb_per_s, flat});
	});
	for (const s of subjects) {
		const r = rows.find(one => one.subject === s);
		if (r.peaks.read_gb_per_s > 0 && Math.abs(r.peaks.read_gb_per_s - p.host_read_gb_per_s) > 1e-9)
			out.push({name: `${r.device} memory ${num(r.peaks.read_gb_per_s)} GB/s`, slope: r.peaks.read_gb_per_s, main: true,
				flat: Math.max(r.peaks.device_f32_gflop_per_s || 0, r.peaks.device_f16_gflop_per_s || 0, r.peaks.device_matrix_gflop_per_s || 0, r.peaks.device_int8_gop_per_s || 0) || Infinity});
	}
	const flats = [['f32', p.host_f32_gflop_per_s, 'GFLOP/s'], ['int8', p.host_int8_gop_per_s, 'GOP/s']];
	if (p.host_f16_gflop_per_s > 1.05 * p.host_f32_gflop_per_s)
		flats.push(['f16', p.host_f16_gflop_per_s, 'GFLOP/s']);
	for (const r of subjects.map(s => rows.find(one => one.subject === s)).filter(one => one.peaks.device_sizes)) {
		flats.push([r.device + ' f32', r.peaks.device_f32_gflop_per_s, 'GFLOP/s']);
		flats.push([r.device + ' f16', Math.max(r.peaks.device_f16_gflop_per_s, r.peaks.device_matrix_gflop_per_s), 'GFLOP/s']);
		flats.push([r.device + ' int8', r.peaks.device_int8_gop_per_s, 'GOP/s']);
	}
	return {out, flats: flats.filter(f => f[1] > 0)};
}

function drawRoofline() {
	const points = rows.filter(r => perByte(r) > 0 && r.gflop_per_s > 0);
	const {out, flats} = roofs();
	drawn.points = 0;
	if (!points.length || !flats.length) {
		$('roofline').replaceChildren(el('p', {class: 'hint', text: 'The machine\'s limits were not measured (--no-peaks), or nothing is known of the work.'}));
		return;
	}
	const width = 1100, height = 470, left = 70, right = flats.some(f => f[0].length > 5) ? 210 : 120, top = 20, bottom = 50;
	const xs = points.map(perByte), ys = points.map(r => r.gflop_per_s);
	const x0 = Math.min(0.25, ...xs) / 1.5, x1 = Math.max(64, ...xs) * 2;
	const y1 = Math.max(...flats.map(f => f[1]), ...ys) * 2, y0 = Math.min(...ys, x0 * Math.min(...out.map(r => r.slope)) * 2) / 2;
	const x = v => left + Math.log(v / x0) / Math.log(x1 / x0) * (width - left - right);
	const y = v => height - bottom - Math.log(v / y0) / Math.log(y1 / y0) * (height - top - bottom);
	const picture = svg('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': 'roofline'});
	for (const t of ticks(x0, x1))
		picture.append(svg('line', {class: 'grid', x1: x(t), x2: x(t), y1: top, y2: height - bottom}), say(x(t), height - bottom + 16, num(t), {class: 'soft', 'text-anchor': 'middle'}));
	for (const t of ticks(y0, y1))
		picture.append(svg('line', {class: 'grid', x1: left, x2: width - right, y1: y(t), y2: y(t)}), say(left - 8, y(t) + 4, num(t), {class: 'soft', 'text-anchor': 'end'}));
	picture.append(say((left + width - right) / 2, height - 10, 'FLOP for each byte that is moved', {class: 'soft', 'text-anchor': 'middle'}),
		svg('text', {class: 'soft', transform: `translate(16 ${height / 2}) rotate(-90)`, 'text-anchor': 'middle', text: 'GFLOP/s'}));
	let below = -Infinity; /* the last label's height: the next one stands under it */
	for (const [name, value, unit] of flats.sort((a, b) => b[1] - a[1])) {
		below = Math.max(y(value) + 4, below + 13);
		picture.append(svg('line', {class: 'roof' + (value < out[0].flat ? ' thin' : ''), x1: x(Math.max(x0, value / Math.max(...out.filter(r => r.flat < Infinity).map(r => r.slope)))), x2: width - right, y1: y(value), y2: y(value)}),
			say(width - right + 6, below, `${name} ${num(value)} ${unit}`));
	}
	for (const r of out) {
		const end = Math.min(x1, r.flat / r.slope, y1 / r.slope), begin = Math.max(x0, y0 / r.slope);
		if (begin >= end)
			continue;
		const angle = -Math.atan2(y(r.slope * begin) - y(r.slope * end), x(end) - x(begin)) * 180 / Math.PI;
		const at = begin * 1.25;
		picture.append(svg('path', {class: 'roof' + (r.main ? '' : ' thin'), d: `M${x(begin)},${y(r.slope * begin)}L${x(end)},${y(r.slope * end)}`}),
			svg('text', {class: r.main ? '' : 'soft', transform: `translate(${x(at)} ${y(r.slope * at) - 6}) rotate(${angle})`, text: r.name}));
	}
	const placed = [];
	for (const r of points) {
		const px = x(perByte(r)), py = y(r.gflop_per_s);
		const dot = svg(r.prompt ? 'rect' : 'circle', r.prompt ? {x: px - 6, y: py - 6, width: 12, height: 12, fill: color(r.subject), class: 'point'}
			: {cx: px, cy: py, r: 6.5, fill: color(r.subject), class: 'point'});
		told(dot, r.subject + ', ' + r.test, [`${num(perByte(r))} FLOP per byte, ${num(r.gflop_per_s)} GFLOP/s, ${num(r.gb_per_s)} GB/s`, r.bound_by ? `${r.bound_by} binds` : '']);
		let ly = py + 4;
		while (placed.some(p => Math.abs(p[0] - px) < 110 && Math.abs(p[1] - ly) < 13))
			ly += 13;
		placed.push([px, ly]);
		const flip = px > width - right - 130;
		picture.append(dot, say(px + (flip ? -11 : 11), ly, r.test, {'text-anchor': flip ? 'end' : 'start'}));
		++drawn.points;
	}
	$('roofline').replaceChildren(picture);
	$('roof-legend').replaceChildren(...subjects.filter(s => points.some(r => r.subject === s)).map(s => el('li', {}, el('span', {class: 'key', style: 'background:' + color(s)}), s)),
		el('li', {text: 'square: prefill; circle: decode'}),
		subjects.some(s => !points.some(r => r.subject === s)) ? el('li', {text: 'what computes nothing is not shown'}) : '');
}
