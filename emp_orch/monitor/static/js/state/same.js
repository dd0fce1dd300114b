// Whether two values of JSON say the same.
export function same(a, b) {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]));
}

// Whether two lists hold the very same things.
export const sameItems = (a, b) => a === b || (a.length === b.length && a.every((item, i) => item === b[i]));
