// What the steps of a new sync share.

/** The six steps. */
export const STEPS = ["home", "new", "folder", "audience", "list", "done"];

/** The way to a step. */
export const at = (step) => `#/new?step=${step}`;

/** Why no sync can be made for this subscription, if so. */
export const door = (subscription) => {
  if (!subscription) return "none";
  if (subscription.hipaa_ready) return "hipaa";
  if (!subscription.org_id) return "no_org";
  return subscription.cookie_sync === false ? "cookie_sync_off" : null;
};
