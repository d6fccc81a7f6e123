// The frame of the page: which view the address names, what is shown while the service is away.
import { T } from './text.js'
import { failed, h, notice, told } from './dom.js'
import { tasksView } from './tasks.js'

const main = document.getElementById('main')
const offline = document.getElementById('offline')
let leaving = new AbortController()
let first = true

// Views come when they are asked for; each gives its element, and stops at `signal`.
const VIEWS = [
  [/^#?\/?$/, async () => tasksView],
  [/^#\/new$/, async () => (await import('./make.js')).makeView],
  [/^#\/task\/([^/]+)(?:\/(\w+))?$/, async () => (await import('./task.js')).taskView],
]

// Show what the address names; `again`: what is shown has changed, and its reader stays where he is.
async function show(again = false) {
  leaving.abort()
  leaving = new AbortController()
  const { signal } = leaving
  let place = -1
  const [pattern, load] = VIEWS.find(([pattern]) => pattern.test(location.hash)) ?? [null, null]
  try {
    if (!pattern) throw new Error(T.noSuchPage)
    const given = pattern.exec(location.hash).slice(1)
    const view = await (await load())({ signal, again, refresh: () => show(true) }, ...given)
    if (signal.aborted) return
    place = again ? cards().findIndex(card => card.contains(document.activeElement)) : -1
    main.replaceChildren(view)
  } catch (error) {
    if (signal.aborted) return
    main.replaceChildren(error.gone ? goneView(error) : brokenView(error))
  }
  document.title = [...main.querySelectorAll('h1')].map(heading => `${heading.textContent} · kshot`)[0] ?? 'kshot'
  for (const link of document.querySelectorAll('#top nav a')) {
    if (link.getAttribute('href') === (location.hash || '#/')) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  if (!first) focused(cards()[Math.min(place, cards().length - 1)] ?? main)
  first = false
  document.getElementById('foot').hidden = false // not before there is something above it, which would move it
}

const cards = () => [...main.querySelectorAll('.card')]

function focused(element) {
  if (element !== main) element.tabIndex = -1
  element.focus({ preventScroll: true })
}

function goneView(error) {
  return notice(T.goneTitle, T.goneText, told(error), h('a', { class: 'button primary', href: '#/' }, T.toTasks))
}

function brokenView(error) {
  return notice(T.brokenTitle, '', told(error),
    h('button', { type: 'button', class: 'primary', onclick: () => show() }, T.tryAgain))
}

function frame() {
  document.getElementById('skip').textContent = T.skip
  document.getElementById('top').append(
    h('a', { class: 'mark', href: '#/', 'aria-label': T.home }, h('img', { src: 'page/icon.svg', alt: '', width: 28, height: 28 }), 'kshot'),
    h('nav', { 'aria-label': T.navigation }, h('a', { href: '#/' }, T.tasks), h('a', { href: '#/new', class: 'button primary' }, T.newTask)))
  document.getElementById('foot').append(h('p', {}, T.foot, ' ', h('a', { href: 'docs' }, T.apiDocs)))
}

// A label or a file dropped beside its target must not replace the page.
for (const name of ['dragover', 'drop']) addEventListener(name, event => event.preventDefault())
addEventListener('hashchange', () => { scrollTo(0, 0); show() })
addEventListener('kshot-away', () => {
  offline.replaceChildren(T.awayNow)
  offline.hidden = false
})
addEventListener('kshot-back', () => {
  offline.hidden = true
  document.getElementById('toasts').replaceChildren()
  if (main.querySelector('.empty .problem')) show()
})
addEventListener('kshot-gone', event => main.replaceChildren(goneView(event.detail)))
addEventListener('unhandledrejection', event => {
  if (event.reason?.detail || event.reason?.name === 'AbortError') event.preventDefault()
  failed(event.reason)
})
frame()
show()

