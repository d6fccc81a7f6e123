// All tasks: find one, open it, take it elsewhere, bring one in.
import { T } from './text.js'
import { confirmed, doing, button, failed, h, notice, own, progress, save, toast } from './dom.js'
import { blob, get, json, to } from './api.js'

const PAGE = 100
const SHOWN_LABELS = 6

export const dated = time => new Date(time).toLocaleDateString(undefined, { day: 'numeric', month: 'short', year: 'numeric' })

export async function exportTask(task) {
  save(await blob(to(task.id, 'export')), `kshot-${task.name ?? task.id}.zip`)
}

export async function deleteTask(task) {
  const named = task.name ?? T.unnamed
  if (!await confirmed(T.deleteTitle, T.deleteText(named), T.remove)) return false
  await json('DELETE', to(task.id))
  toast(T.deleted(named))
  return true
}

export function expiry(task) {
  return task.expires_at ? T.expires(dated(task.expires_at)) : T.noEnd
}

function line(task, refresh) {
  const shown = task.labels.slice(0, SHOWN_LABELS)
  const rest = task.labels.length - shown.length
  return h('li', { class: 'task' },
    h('div', { class: 'about' },
      h('h2', {}, h('a', { href: `#/task/${task.id}` }, own(task.name ?? T.unnamed))),
      h('p', { class: 'chips' }, shown.map(label => h('span', { class: 'chip' }, own(label))),
        rest > 0 && h('span', { class: 'chip more' }, T.moreLabels(rest))),
      h('p', { class: 'small muted' }, [T.counts(task.labels.length, task.clips), T.made(dated(task.created_at)), expiry(task)].join(' · '),
        task.status !== 'ready' && h('span', { class: `state ${task.status}` }, T.states[task.status]))),
    h('div', { class: 'row tight' },
      doing(T.export, () => exportTask(task), { 'aria-label': T.exportOf(task.name ?? task.id) }),
      doing(T.remove, async () => { if (await deleteTask(task)) refresh() }, { class: 'danger', 'aria-label': T.removeOf(task.name ?? task.id) })))
}

function importer() {
  const box = h('div', { class: 'away' })
  const input = h('input', { type: 'file', accept: '.zip,application/zip', class: 'away', tabindex: '-1', 'aria-label': T.import,
    onchange: async () => {
      const [file] = input.files
      input.value = ''
      if (!file) return
      const meter = progress(T.sending)
      box.replaceChildren(meter)
      box.classList.remove('away')
      try {
        const task = await json('POST', 'v1/tasks/import', { body: file, headers: { 'Content-Type': 'application/zip' },
          onProgress: share => meter.tell(share < 1 ? T.sending : T.reading, share < 1 ? share : null) })
        location.hash = `#/task/${task.id}`
      } catch (error) {
        failed(error)
      } finally {
        box.replaceChildren()
        box.classList.add('away')
      }
    } })
  return [button(T.import, () => input.click()), input, box]
}

function welcome() {
  return notice(T.welcomeTitle, T.welcomeText,
    h('ol', { class: 'steps' }, T.welcomeSteps.map(([title, text]) => h('li', {}, h('strong', {}, title), h('span', {}, text)))),
    h('div', { class: 'row centre' }, h('a', { class: 'button primary large', href: '#/new' }, T.firstTask), importer()))
}

export async function tasksView({ signal, refresh }) {
  let page = await get(`v1/tasks?limit=${PAGE}`, { signal })
  const tasks = [...page.tasks]
  if (!tasks.length) return h('div', {}, h('h1', { class: 'unseen' }, T.tasks), welcome())
  const list = h('ul', { class: 'list' })
  const found = h('p', { class: 'small muted', role: 'status' })
  const more = doing(T.more, async () => { await next(); draw() })
  const next = async () => {
    page = await get(`v1/tasks?limit=${PAGE}&cursor=${encodeURIComponent(page.next_cursor)}`, { signal })
    tasks.push(...page.tasks)
  }
  const search = h('input', { type: 'search', id: 'search', placeholder: T.searchHint, dir: 'auto', autocomplete: 'off',
    oninput: async () => {
      draw()
      while (search.value && page.next_cursor) { await next(); draw() }
    } })
  const draw = () => {
    const wanted = search.value.trim().toLocaleLowerCase()
    const fits = tasks.filter(task => [task.name ?? T.unnamed, task.id, ...task.labels].some(text => text.toLocaleLowerCase().includes(wanted)))
    list.replaceChildren(...fits.map(task => line(task, refresh)))
    found.textContent = wanted ? (fits.length ? T.found(fits.length) : T.noneFound(search.value)) : ''
    more.hidden = !page.next_cursor
  }
  draw()
  return h('div', { class: 'stack' },
    h('div', { class: 'row spread' }, h('h1', {}, T.tasks), h('div', { class: 'row' }, importer())),
    h('label', { for: 'search', class: 'unseen' }, T.search), search, found, list, more)
}
