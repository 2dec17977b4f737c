export type * from "./models.js";
