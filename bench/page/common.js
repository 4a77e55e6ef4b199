/* Errors, elements, numbers, and the data. */
'use strict';

const errors = [];
function trouble(what) {
	errors.push(String(what));
	document.body.dataset.errors = String(errors.length);
	document.body.dataset.firstError = errors[0];
	const line = document.getElementById('trouble');
	line.hidden = false;
	line.textContent = 'This page did not draw completely: ' + errors[0];
}
window.addEventListener('error', event => trouble(event.message || event.error));
window.addEventListener('unhandledrejection', event => trouble(event.reason));

const $ = id => document.getElementById(id);

function fill(node, attributes, children) {
	for (const [name, value] of Object.entries(attributes || {})) {
		if (value === null || value === undefined || value === false)
			continue;
		if (name === 'text')
			node.textContent = value;
		else if (name === 'style')
			node.style.cssText = value;
		else
			node.setAttribute(name, value === true ? '' : value);
	}
	for (const child of children)
		if (child !== null && child !== undefined)
			node.append(child);
	return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
	fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
const say = (x, y, text, more) => svg('text', {x, y, text, ...more});

/* What is said of an element while the pointer is on it. */
function told(node, title, lines) {
	node.addEventListener('pointermove', event => {
		const tip = $('tip');
		tip.replaceChildren(el('b', {text: title}), ...lines.filter(Boolean).map(t => el('div', {text: t})));
		tip.hidden = false;
		const box = tip.getBoundingClientRect();
		tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8)) + 'px';
		tip.style.top = Math.max(4, event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 16) + 'px';
	});
	node.addEventListener('pointerleave', () => { $('tip').hidden = true; });
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
