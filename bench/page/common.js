/* Numbers, and the data. */
const say = (x, y, text, more) => svg('text', {x, y, text, ...more});

/* What is said of an element while the pointer is on it. */
function told(node, title, lines) {
	node.addEventListener('pointermove', event => showTip(event, title, lines));
	node.addEventListener('pointerleave', hideTip);
	return node;
}

/* Three digits: 0.123, 1.23, 12.3, 123, 1,234. */
function num(v) {
	if (!(Math.abs(v) < Infinity))
		return '-';
	const a = Math.abs(v);
	return a >= 100 || a === 0 ? Math.round(v).toLocaleString('en-US') : a >= 10 ? v.toFixed(1) : a >= 0.1 ? v.toFixed(2) : v.toPrecision(2);
}
function seconds(s) {
	if (!(s > 0))
		return '-';
	return s < 1e-3 ? num(s * 1e6) + ' µs' : s < 1 ? num(s * 1e3) + ' ms' : num(s) + ' s';
}
const megabytes = n => n === undefined ? '-' : num(n / 1e6) + ' MB';
const percent = v => v > 0 ? num(v * 100) + ' %' : '-';

const data = JSON.parse($('data').textContent);
const rows = data.rows, profiles = data.profiles;
const subjects = [...new Set(rows.map(r => r.subject))];
const tests = [...new Set(rows.map(r => r.test))];
const hues = [212, 28, 150, 330, 265, 95, 0, 185];
const color = subject => `hsl(${hues[subjects.indexOf(subject) % hues.length]} var(--sat) var(--lit))`;
const wrong = r => Boolean(r.check && r.check.wrong);
const drawn = {};
