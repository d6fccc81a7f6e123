// Elements made of values: text stays text, whatever it contains.
import { T } from './text.js'

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (name === 'vars') for (const key in value) element.style.setProperty(key, value[key])
    else if (['value', 'checked', 'disabled', 'hidden', 'muted'].includes(name)) element[name] = value
    else element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false))
  return element
}

// What a user wrote, in the direction of its own script.
export const own = text => h('bdi', { class: 'own' }, text)

export function button(text, onclick, props = {}) {
  return h('button', { type: 'button', onclick, ...props }, text)
}

// A button that runs something that takes a while: off meanwhile, and its error told.
export function doing(text, action, props = {}) {
  const element = button(text, async () => {
    if (element.getAttribute('aria-busy') === 'true') return
    element.setAttribute('aria-busy', 'true')
    try {
      await action()
    } catch (error) {
      failed(error)
    } finally {
      element.removeAttribute('aria-busy')
    }
  }, props)
  return element
}

export function toast(content, kind = '') {
  const box = h('div', { class: `toast ${kind}` }, h('div', {}, content),
    button('×', () => box.remove(), { class: 'plain', 'aria-label': T.close }))
  const all = document.getElementById('toasts')
  all.append(box)
  while (all.childElementCount > 3) all.firstElementChild.remove()
  if (kind !== 'bad') setTimeout(() => box.remove(), 6000)
}

export function failed(error) {
  if (error?.name === 'AbortError') return
  if (error?.gone) return dispatchEvent(new CustomEvent('kshot-gone', { detail: error }))
  toast(told(error), 'bad')
}

// A problem as the service words it, with the id under which its log has it.
export function told(error) {
  const faults = error.clips ?? []
  return h('div', { class: 'problem' },
    h('p', {}, error.detail ?? error.message ?? String(error)),
    faults.length > 1 && h('ul', {}, faults.slice(0, 5).map(fault => h('li', {},
      own(fault.name ?? T.clipNumber(fault.index + 1)), ': ', fault.detail))),
    error.instance && h('p', { class: 'small muted' }, `${T.instance} `, h('code', {}, error.instance)))
}

export function notice(title, text, ...more) {
  return h('section', { class: 'empty' }, h('h2', {}, title), text && h('p', {}, text), more)
}

export function spinner(text) {
  return h('p', { class: 'working', role: 'status' }, h('span', { class: 'dot', 'aria-hidden': 'true' }), text)
}

export function bar(share, props = {}) {
  return h('span', { class: 'bar', 'aria-hidden': 'true', ...props },
    h('span', { class: 'fill', vars: { '--share': Math.max(0, Math.min(1, share)) } }))
}

export function progress(text) {
  const meter = h('progress', { max: 1, 'aria-label': text })
  const words = h('span', {}, text)
  const box = h('div', { class: 'progress', role: 'status' }, words, meter)
  box.tell = (said, share) => {
    words.textContent = said
    if (share === null) meter.removeAttribute('value')
    else meter.value = share
  }
  return box
}

// A dialog; `close` is called with what was decided, or with undefined.
export function dialog(title, content, { wide = false } = {}) {
  const heading = h('h2', { id: 'dialog-title' }, title)
  const cancel = button('×', () => box.close(), { class: 'plain', 'aria-label': T.close })
  const box = h('dialog', { class: wide ? 'wide' : '', 'aria-labelledby': 'dialog-title' },
    h('div', { class: 'row spread' }, heading, cancel), content)
  box.addEventListener('close', () => box.remove())
  document.body.append(box)
  box.showModal()
  return box
}

export function confirmed(title, text, action) {
  return new Promise(resolve => {
    let sure = false
    const box = dialog(title, h('div', { class: 'stack' }, h('p', {}, text),
      h('div', { class: 'row end' },
        button(T.cancel, () => box.close()),
        button(action, () => { sure = true; box.close() }, { class: 'danger' }))))
    box.addEventListener('close', () => resolve(sure))
  })
}

// Ask for one text.
export function asked(title, label, value = '', { action = T.save, type = 'text', hint = '', options } = {}) {
  return new Promise(resolve => {
    let given
    const input = h('input', { type, value, id: 'asked', autocomplete: 'off', dir: 'auto',
      ...(options && { list: 'asked-options' }) })
    const box = dialog(title, h('form', {
      class: 'stack',
      onsubmit: event => {
        event.preventDefault()
        given = input.value
        box.close()
      },
    }, h('label', { for: 'asked' }, label), input,
    options && h('datalist', { id: 'asked-options' }, options.map(value => h('option', { value }))),
    hint && h('p', { class: 'small muted' }, hint),
    h('div', { class: 'row end' }, button(T.cancel, () => box.close()),
      h('button', { type: 'submit', class: 'primary' }, action))))
    input.focus()
    box.addEventListener('close', () => resolve(given))
  })
}

export function save(blob, name) {
  const link = h('a', { href: URL.createObjectURL(blob), download: name })
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
}

export const percent = share => `${Math.round(100 * share)}\u00a0%`
export const seconds = value => `${value < 10 ? value.toFixed(1) : Math.round(value)} s`
