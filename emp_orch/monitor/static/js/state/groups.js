// Things by whom they belong to. A group that nothing changed in keeps its identity, so that its card is not drawn again.
const NONE = [];

export class Groups {
  constructor(ownerOf, keyOf, order) {
    Object.assign(this, { ownerOf, keyOf, order });
    this.owners = new Map();
    this.lists = new Map();
  }

  of(owner) {
    const members = this.owners.get(owner);
    if (!members) return NONE;
    let list = this.lists.get(owner);
    if (!list) this.lists.set(owner, (list = [...members.values()].sort(this.order)));
    return list;
  }

  change({ put, gone }) {
    for (const item of gone) {
      const owner = this.ownerOf(item);
      this.owners.get(owner)?.delete(this.keyOf(item));
      this.lists.delete(owner);
    }
    for (const item of put) {
      const owner = this.ownerOf(item);
      if (!this.owners.has(owner)) this.owners.set(owner, new Map());
      this.owners.get(owner).set(this.keyOf(item), item);
      this.lists.delete(owner);
    }
  }
}
