// The parts of CodeMirror that the SQL page uses.
export { EditorState, Compartment, StateEffect, StateField, Prec } from "@codemirror/state";
export {
  EditorView, Decoration, keymap, lineNumbers, drawSelection, highlightActiveLine, highlightSpecialChars, placeholder,
} from "@codemirror/view";
export { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
export { bracketMatching, syntaxHighlighting, HighlightStyle, indentUnit } from "@codemirror/language";
export { sql, PostgreSQL, SQLDialect } from "@codemirror/lang-sql";
export { autocompletion, completionKeymap, closeBrackets, closeBracketsKeymap } from "@codemirror/autocomplete";
export { tags } from "@lezer/highlight";
