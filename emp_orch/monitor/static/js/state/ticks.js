// One clock for every time that is shown: once a second, and not while nobody looks.
const watchers = new Set();

export function watch(onTick) {
  watchers.add(onTick);
  return () => watchers.delete(onTick);
}

setInterval(() => {
  if (!document.hidden) for (const onTick of watchers) onTick();
}, 1_000);
