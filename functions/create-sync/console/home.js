// Database: all syncs, and the way to a new one.

import { h } from "./dom.js";
import { t } from "./words.js";

export const page = async () => h("div", null, h("h1", null, t("home.title")));
