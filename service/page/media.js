// Video in the browser: its length, its pictures, and recordings of the camera or of a span.
import { T } from './text.js'

const FORMATS = ['video/mp4;codecs=avc1.42E01E', 'video/webm;codecs=vp8', 'video/webm']
const PATIENCE_MS = 8000
let turn = Promise.resolve()

function once(target, name) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(T.noPreview)), PATIENCE_MS)
    const done = act => value => { clearTimeout(late); act(value) }
    target.addEventListener(name, done(resolve), { once: true })
    target.addEventListener('error', done(() => reject(new Error(T.noPreview))), { once: true })
  })
}

// Load a file into a video element whose length is known; recordings do not tell theirs.
export async function opened(file) {
  const video = document.createElement('video')
  video.muted = true
  video.playsInline = true
  video.preload = 'auto'
  const loaded = once(video, 'loadeddata')
  video.src = URL.createObjectURL(file)
  await loaded
  if (!Number.isFinite(video.duration)) {
    const known = once(video, 'durationchange')
    video.currentTime = 1e7
    await known
    await seek(video, 0)
  }
  return video
}

export async function seek(video, time) {
  const shown = once(video, 'seeked')
  video.currentTime = Math.min(time, Math.max(0, video.duration - 0.01))
  await shown
}

export function shut(video) {
  URL.revokeObjectURL(video.src)
  video.removeAttribute('src')
  video.load()
}

export function moments(start, end, count = 8) {
  return Array.from({ length: count }, (_, k) => start + (end - start) * (k + 0.5) / count)
}

// Draw pictures of a file side by side; one file at a time, so that many do not fill the memory.
export function pictures(file, times, start_s, end_s, look) {
  const mine = turn.then(() => drawn(file, times, start_s, end_s, look))
  turn = mine.catch(() => {})
  return mine
}

// Each is the square in its middle, or that part of its width and its height, made a square.
async function drawn(file, times, start_s, end_s, { side = 96, part = null } = {}) {
  const video = await opened(file)
  try {
    const duration = video.duration
    times ??= moments(start_s ?? 0, end_s ?? duration)
    const canvas = document.createElement('canvas')
    canvas.width = side * times.length
    canvas.height = side
    const pen = canvas.getContext('2d')
    const size = [video.videoWidth, video.videoHeight]
    const [width, height] = size.map(length => (part ? part * length : Math.min(...size)))
    for (const [place, time] of times.entries()) {
      await seek(video, time)
      pen.drawImage(video, (size[0] - width) / 2, (size[1] - height) / 2, width, height, place * side, 0, side, side)
    }
    return { canvas, duration, times }
  } finally {
    shut(video)
  }
}

export function canRecord() {
  return Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder)
}

export function camera() {
  if (!canRecord()) throw new Error(window.isSecureContext ? T.noCamera : T.cameraNeedsHttps)
  return navigator.mediaDevices.getUserMedia({
    video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } },
    audio: false,
  }).catch(error => {
    throw new Error(error.name === 'NotAllowedError' ? T.cameraRefused : T.noCamera)
  })
}

// Record a stream until `stop` is called; give the file. It lasts from `started` on, which may be a while after the call.
export function recording(stream, name) {
  const mimeType = FORMATS.find(type => MediaRecorder.isTypeSupported(type))
  const recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: 2_500_000 })
  const parts = []
  recorder.ondataavailable = event => event.data.size && parts.push(event.data)
  const file = new Promise((resolve, reject) => {
    recorder.onerror = () => reject(new Error(T.noCamera))
    recorder.onstop = () => {
      const type = mimeType.split(';')[0]
      resolve(new File(parts, `${name}.${type.split('/')[1]}`, { type }))
    }
  })
  const started = new Promise(resolve => {
    for (const name of ['start', 'stop', 'error']) recorder.addEventListener(name, resolve, { once: true })
  })
  recorder.start()
  return { file, started, stop: () => recorder.state !== 'inactive' && recorder.stop() }
}

// Record a span of a video that is too long or too large to be sent, as fast as it plays.
export async function recordedSpan(video, start_s, end_s, name) {
  await seek(video, start_s)
  const taken = recording(video.captureStream(), name) // which has nothing to start with until it plays
  await video.play()
  await new Promise(resolve => {
    const look = () => (video.currentTime >= end_s || video.ended ? resolve() : requestAnimationFrame(look))
    look()
  })
  video.pause()
  taken.stop()
  return taken.file
}

// Cut the strip of a clip that the service keeps into its pictures, base64 of PNG.
export async function cut(strip, count) {
  const picture = await createImageBitmap(strip)
  const side = picture.width / count
  const canvas = document.createElement('canvas')
  canvas.width = side
  canvas.height = picture.height
  const pen = canvas.getContext('2d')
  return Array.from({ length: count }, (_, place) => {
    pen.drawImage(picture, place * side, 0, side, picture.height, 0, 0, side, picture.height)
    return canvas.toDataURL('image/png').split(',')[1]
  })
}
