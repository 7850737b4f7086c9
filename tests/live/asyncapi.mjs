// Checks the AsyncAPI document with its official parser: a diagnostic of severity 0 is an error.
//
//     BATCHMILL_PARTS=.parts node tests/live/asyncapi.mjs schemas/asyncapi.yaml

import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const parts = process.env.BATCHMILL_PARTS ?? fileURLToPath(new URL("../../.parts", import.meta.url));
const require = createRequire(path.join(path.resolve(parts), "node", "package.json"));
const { Parser, fromFile } = require("@asyncapi/parser");

const file = process.argv[2];
const { document, diagnostics } = await fromFile(new Parser(), file).parse();
const errors = diagnostics.filter((found) => found.severity === 0);
for (const { message, path: where, range } of errors) {
  console.log(`${file}:${range.start.line + 1}: ${where.join(".")}: ${message}`);
}
if (errors.length > 0 || document === undefined) {
  console.log(`${file}: ${errors.length} errors`);
  process.exit(1);
}
console.log(`${file}: ${document.channels().all().length} channels, ${document.operations().all().length} operations ok`);
