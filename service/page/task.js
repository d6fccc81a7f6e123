// One task: its head with what concerns the whole of it, its tabs, and its progress.
import { T } from './text.js'
import { asked, doing, failed, h, notice, own, progress, toast } from './dom.js'
import { get, json, to } from './api.js'
import { deleteTask, expiry, exportTask } from './tasks.js'

const TABS = {
  examples: async () => (await import('./examples.js')).examplesTab,
  judge: async () => (await import('./judge.js')).judgeTab,
  ask: async () => (await import('./ask.js')).askTab,
  inbox: async () => (await import('./inbox.js')).inboxTab,
  watch: async () => (await import('./watch.js')).watchTab,
}
const DAY_S = 86_400

export async function taskView(context, id, tab = 'examples') {
  const part = (TABS[tab] ?? TABS.examples)() // read while the task is
  part.catch(() => {})
  const view = await get(to(id), { signal: context.signal })
  const body = h('div', { class: 'tab stack' })
  const head = h('div', { class: 'head' })
  const page = h('div', { class: 'stack' }, head,
    h('nav', { class: 'tabs', 'aria-label': T.parts }, Object.keys(TABS).map(name =>
      h('a', { href: `#/task/${id}/${name}`, 'aria-current': name === tab ? 'page' : null }, T.tabs[name]))), body)
  drawHead(head, view, context)
  if (view.status === 'failed') body.append(failedTask(view))
  else if (view.status === 'processing') wait(body, view, context).catch(failed)
  else body.append(await (await part)(view, { ...context, redraw: after => drawHead(head, after, context) }))
  return page
}

function drawHead(head, view, { refresh }) {
  const change = async (fields, said) => {
    await json('PATCH', to(view.id), { json: fields })
    toast(said)
    refresh()
  }
  const rename = async () => {
    const name = await asked(T.rename, T.name, view.name ?? '')
    if (name !== undefined) await change({ name: name.trim() || null }, T.renamed)
  }
  const expire = async () => {
    const days = await asked(T.expiryTitle, T.expiryLabel, '', { type: 'number', hint: T.expiryHint })
    if (days !== undefined) await change({ ttl_s: days ? Number(days) * DAY_S : null }, T.expiryChanged)
  }
  head.replaceChildren(
    h('div', { class: 'about' }, h('h1', {}, own(view.name ?? T.unnamed)),
      h('p', { class: 'small muted' }, [T.counts(view.labels.length, view.clips.length), expiry(view), T.revision(view.revision)].join(' · '))),
    h('div', { class: 'row tight' }, doing(T.rename, rename), doing(T.expiry, expire), doing(T.export, () => exportTask(view)),
      doing(T.remove, async () => { if (await deleteTask(view)) location.hash = '#/' }, { class: 'danger' })))
}

function failedTask(view) {
  return notice(T.failedTitle, view.failure,
    h('ul', { class: 'plainly' }, view.refused_clips.map(clip => h('li', {}, own(clip.name ?? ''), ': ', clip.detail))),
    h('a', { class: 'button primary', href: '#/new' }, T.newTask))
}

// Show how far it is until it is ready.
async function wait(body, view, { signal, refresh }) {
  const meter = progress(T.preparing)
  body.replaceChildren(meter)
  while (view.status === 'processing') {
    meter.tell(T.preparing, view.progress)
    await new Promise(resolve => setTimeout(resolve, 500))
    if (signal.aborted) return
    view = await get(to(view.id), { signal })
  }
  refresh()
}
