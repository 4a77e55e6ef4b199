/* What the pages share: errors, elements, the tip under the pointer. */
'use strict';

const errors = [];
function trouble(what) {
	errors.push(String(what));
	document.body.dataset.errors = String(errors.length);
	document.body.dataset.firstError = errors[0];
	const line = document.getElementById('trouble');
	if (line) {
		line.hidden = false;
		line.textContent = 'This page did not draw completely: ' + errors[0];
	}
}
window.addEventListener('error', event => trouble(event.message || event.error));
window.addEventListener('unhandledrejection', event => trouble(event.reason));

/* ---- elements ---- */

const $ = id => document.getElementById(id);

function fill(node, attributes, children) {
	for (const [name, value] of Object.entries(attributes || {})) {
		if (value === null || value === undefined || value === false)
			continue;
		if (name === 'text')
			node.textContent = value;
		else if (name === 'style')
			node.style.cssText = value;
		else if (name.startsWith('on'))
			node.addEventListener(name.slice(2), value);
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

/* ---- tooltip ---- */

function showTip(event, title, lines) {
	const tip = $('tip');
	tip.replaceChildren(el('b', {text: title}), ...lines.filter(Boolean).map(t => el('div', {text: t})));
	tip.hidden = false;
	const box = tip.getBoundingClientRect();
	const x = Math.min(event.clientX + 14, innerWidth - box.width - 8);
	const y = event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 16;
	tip.style.left = Math.max(4, x) + 'px';
	tip.style.top = Math.max(4, y) + 'px';
}
const hideTip = () => { $('tip').hidden = true; };
