// What a member of a pool is at, in the order in which that is told.
export const READY = "ready";
export const STARTING = "starting";
export const EXPECTED = "expected";
export const LEAVING = "leaving";
export const SILENT = "silent";
export const LEFT = "left";
const ORDER = [READY, STARTING, EXPECTED, LEAVING, SILENT, LEFT];

export function memberState(member, machine) {
  if (member.state === LEFT) return LEFT;
  if (member.leaving) return LEAVING;
  if (!machine) return member.state === EXPECTED ? EXPECTED : STARTING;
  if (machine.stale) return SILENT;
  return machine.status === READY ? READY : STARTING;
}

export const rank = (member, machine) => ORDER.indexOf(memberState(member, machine));

// How many members are at what: [state, how many], of those that there are.
export function counted(store, pool) {
  const counts = new Map();
  for (const member of store.membersBy.of(pool)) {
    const state = memberState(member, store.machines.get(member.id));
    counts.set(state, (counts.get(state) ?? 0) + 1);
  }
  return ORDER.filter((state) => counts.has(state)).map((state) => [state, counts.get(state)]);
}

// Those that count as members of now.
export const present = (counts) => counts.reduce((n, [state, count]) => (state === LEFT ? n : n + count), 0);

// `0..40`, or one number.
export const sizeOf = ({ least, most }) => (least === most ? String(most) : `${least}..${most}`);

// Whether a machine is somebody on whom one counts now: of members not who is expected, or left.
export const counts = (store, id) => {
  const member = store.members.get(id);
  return !member || ![EXPECTED, LEFT].includes(memberState(member, store.machines.get(id)));
};
