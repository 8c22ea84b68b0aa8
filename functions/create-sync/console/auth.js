// Who uses the console. Without an authority it is open, as the local stack is.

export const ready = async () => {};

export const token = () => null;

export const user = () => ({ name: "", role: "operator" });

export const signOut = () => {};
