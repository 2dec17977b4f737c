/** Which one this is: the proxy's version. */
export const VERSION = "0.1.0";

export const USER_AGENT = `aegis-sdk-typescript/${VERSION}`;
