// What one may type for a list: a name, an id, or the address of a list in Marketo.

/** `{id}` of an id or an address, `{name}` of a name, `{wrong}` of the address of something else, null of nothing. */
export const read = (text) => {
  const typed = text.trim();
  if (typed === "") return null;
  if (/^\d{1,15}$/.test(typed) && Number(typed) > 0) return { id: Number(typed), name: typed };
  // https://app-ab12.marketo.com/#ST1001A1, and the same within Experience Cloud: …/classic/ST1001A1
  if (/^https?:\/\//i.test(typed) || /^#?ST\d+[A-Z]\d+/.test(typed)) {
    const found = /(?:^|[#/])ST(\d{1,15})(?![0-9])/.exec(typed);
    return found && Number(found[1]) > 0 ? { id: Number(found[1]) } : { wrong: /(?:[#/])SL\d+/.test(typed) ? "smart" : "other" };
  }
  return { name: typed };
};

/** Whether two names are one to Marketo. */
export const same = (a, b) => a.trim().toLocaleLowerCase() === b.trim().toLocaleLowerCase();
