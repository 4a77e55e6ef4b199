/* The memory timeline: every tensor in the arena as a rectangle, offset against step. */

const timeline = {drawn: 0, zoom: 1};

/* The visit whose step first touches a block. */
function ownerOf(block) {
	return entries[block.first] ? entries[block.first].group : null;
}

/* Bytes that are needed at each step. A step that works in place has two names for the same bytes: they count once. */
function liveBytes(blocks, steps) {
	const live = new Array(steps).fill(0);
	for (let step = 0; step < steps; ++step) {
		const seen = new Map();
		for (const b of blocks.byStep[step]) {
			const key = b.arena + ':' + b.offset;
			seen.set(key, Math.max(seen.get(key) || 0, b.bytes));
		}
		for (const n of seen.values())
			live[step] += n;
	}
	return live;
}
function byStep(blocks, steps) {
	const lists = Array.from({length: steps}, () => []);
	for (const b of blocks)
		for (let s = b.first; s <= b.last; ++s)
			lists[s].push(b);
	return lists;
}

/* Ticks at 1, 2 or 5 times a power of ten of a binary unit. */
function ticks(limit) {
	const unit = limit < 1024 ? 1 : limit < 1048576 ? 1024 : limit < 1073741824 ? 1048576 : 1073741824;
	const rough = limit / unit / 5, power = Math.pow(10, Math.floor(Math.log10(rough)));
	const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough) * unit, out = [];
	for (let at = 0; at <= limit; at += step)
		out.push(at);
	return out;
}

function drawTimeline() {
	const b = report.buckets[bucket], about = b.about, steps = b.steps.length;
	const all = b.arenas.reduce((sum, a) => sum + a.bytes, 0);
	const start = new Map();
	let base = 0;
	for (const a of b.arenas) { /* several arenas stand one on the other, a line between them */
		start.set(a.id, base);
		base += a.bytes;
	}
	const frame = $('timeline-frame').clientWidth || 1200;
	const left = 74, right = 18, top = 30, height = 330, bottom = 40;
	const width = Math.max(600, frame - 2) * timeline.zoom, inner = width - left - right;
	const X = step => left + step * inner / steps, Y = at => top + height - at * height / Math.max(1, all);
	const root = $('timeline');
	root.setAttribute('width', width);
	root.setAttribute('height', top + height + bottom);
	root.replaceChildren(svg('defs', {}, svg('pattern', {id: 'hatch', width: 6, height: 6, patternUnits: 'userSpaceOnUse',
		patternTransform: 'rotate(45)'}, svg('rect', {width: 2, height: 6, class: 'band plain', style: 'opacity:.8'}))));

	drawBands(root, X, top, height, steps);
	for (const at of ticks(all))
		root.append(svg('line', {class: 'axis', x1: left, x2: width - right, y1: Y(at), y2: Y(at)}),
			svg('text', {class: 'axis-text', x: left - 6, y: Y(at) + 4, 'text-anchor': 'end', text: bytes(at)}));

	for (const a of b.arenas.slice(1))
		root.append(svg('line', {class: 'arena-cut', x1: left, x2: width - right, y1: Y(start.get(a.id)), y2: Y(start.get(a.id))}));

	timeline.drawn = 0;
	for (const block of b.blocks) {
		const owner = ownerOf(block), at = start.get(block.arena) + block.offset, scratch = block.storage === 0;
		const plain = !owner || owner.layer < 0 ? ' plain' : '';
		root.append(svg('rect', {class: scratch ? 'scratch' : 'block' + plain, 'data-block': timeline.drawn,
			x: X(block.first), width: Math.max(0.7, X(block.last + 1) - X(block.first)), y: Y(at + block.bytes),
			height: Math.max(0.7, Y(at) - Y(at + block.bytes)), style: plain || scratch ? null : '--h:' + hueOf(owner.layer)}));
		++timeline.drawn;
	}
	b.blocks.byStep = byStep(b.blocks, steps);
	const live = liveBytes(b.blocks, steps);
	root.append(svg('path', {class: 'live' + (inner / steps < 5 ? ' thin' : ''), d: live.map((n, i) => `${i ? 'L' : 'M'}${X(i)},${Y(n)}H${X(i + 1)}`).join('')}),
		svg('line', {class: 'bound', x1: left, x2: width - right, y1: Y(about.arena_lower_bound), y2: Y(about.arena_lower_bound)}),
		svg('text', {class: 'bound-text', x: left + 6, y: top - 16, text:
			`lower bound ${bytes(about.arena_lower_bound)}: what is needed at once, at the fullest step; the arena has ${bytes(about.arena_bytes)}`}),
		svg('text', {class: 'axis-text', x: left, y: top + height + 34, text: 'step 0'}),
		svg('text', {class: 'axis-text', x: width - right, y: top + height + 34, 'text-anchor': 'end', text: 'step ' + (steps - 1)}),
		svg('text', {class: 'axis-text', x: left + inner / 2, y: top + height + 34, 'text-anchor': 'middle', text: 'steps of one run, in order'}));
	memoryHint(about, b.arenas.length);
}

/* A stripe of each visit's colour, with its number where there is room. */
function drawBands(root, X, top, height, steps) {
	let from = 0;
	const flush = to => {
		const g = entries[from].group, plain = g.layer < 0 ? ' plain' : '';
		const room = X(to) - X(from), text = g.visit >= 0 ? (room > 52 ? 'visit ' + g.visit : String(g.visit)) : room > 60 ? g.title : '';
		root.append(svg('rect', {class: 'band' + plain, x: X(from), width: room, y: top, height: height + 20,
			style: plain ? null : '--h:' + hueOf(g.layer)}));
		if (text.length * 6.5 < room)
			root.append(svg('text', {class: 'axis-text', x: (X(from) + X(to)) / 2, y: top + height + 15, 'text-anchor': 'middle', text}));
		from = to;
	};
	for (let i = 1; i < steps; ++i)
		if (entries[i].group !== entries[i - 1].group)
			flush(i);
	flush(steps);
}

function memoryHint(about, arenas) {
	const gap = about.arena_lower_bound ? 100 * (about.arena_bytes / about.arena_lower_bound - 1) : 0;
	const hint = $('memory-hint');
	hint.replaceChildren(el('span', {text: 'All activations of a run share ' + (arenas === 1 ? 'one arena of ' + bytes(about.arena_bytes)
		: arenas + ' arenas of ' + bytes(about.arena_bytes) + ' together, because the device limits the size of one buffer') +
		'. Without sharing they would take ' + bytes(about.arena_unshared) + '. '}), el('b', {text: gap < 0.005
		? 'No arrangement of these steps can do with less: the black line reaches the top.'
		: 'The gap to what no plan can go below is ' + gap.toFixed(2) + ' %.'}),
		el('span', {text: ' ' + plural(about.in_place, 'step') + (about.in_place === 1 ? ' writes over its' : ' write over their') + ' own input.'}));
}

function wireTimeline() {
	const root = $('timeline');
	root.addEventListener('pointermove', event => {
		const hit = event.target.closest('[data-block]');
		if (!hit)
			return hideTip();
		const block = report.buckets[bucket].blocks[Number(hit.dataset.block)], owner = ownerOf(block);
		const lines = [block.storage ? block.type : 'scratch, needed while this step runs', bytes(block.bytes) + ' at offset ' + count(block.offset) +
			(report.buckets[bucket].arenas.length > 1 ? ' of buffer ' + block.arena : ''),
			block.first === block.last ? 'step ' + block.first : 'steps ' + block.first + ' to ' + block.last + ' (' +
				plural(block.last - block.first + 1, 'step') + ')',
			owner && owner.visit >= 0 ? visitName(owner.visit) : owner ? owner.title : null];
		return showTip(event, block.name || 'tensor', lines);
	});
	root.addEventListener('pointerleave', hideTip);
	$('memory-zoom').replaceChildren(...[1, 3, 10].map(z => el('button', {type: 'button', text: z + ' x', 'aria-pressed': String(z === timeline.zoom),
		onclick: event => {
			timeline.zoom = z;
			for (const other of $('memory-zoom').children)
				other.setAttribute('aria-pressed', String(other === event.target));
			drawTimeline();
		}})));
	addEventListener('resize', drawTimeline);
}
