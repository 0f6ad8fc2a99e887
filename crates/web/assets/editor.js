// The editor of statements: CodeMirror with the engine's completion and marks at errors.
//
// It is in a shadow root: there CodeMirror adds its styles as objects, which the content security policy allows.

import { post } from "./elements.js";

/** Makes an editor in an element. `onRun` is called on Ctrl+Enter. */
export async function makeEditor(parent, label, onRun) {
  const cm = await import("./vendor-editor.js");
  const { EditorView, EditorState, StateEffect, StateField, Decoration } = cm;
  const setMark = StateEffect.define();
  const marks = StateField.define({
    create: () => Decoration.none,
    update(value, transaction) {
      for (const effect of transaction.effects) if (effect.is(setMark)) return effect.value;
      // A text that is being mended has no error yet.
      return transaction.docChanged ? Decoration.none : value;
    },
    provide: (field) => EditorView.decorations.from(field),
  });
  const { tags } = cm;
  const colors = cm.HighlightStyle.define([
    { tag: tags.keyword, color: "var(--first)", fontWeight: "600" },
    { tag: [tags.string, tags.special(tags.string)], color: "var(--good)" },
    { tag: [tags.number, tags.bool, tags.null], color: "var(--second)" },
    { tag: tags.comment, color: "var(--soft)", fontStyle: "italic" },
    { tag: tags.typeName, color: "var(--second)" },
  ]);
  const theme = EditorView.theme({
    "&": { color: "var(--ink)", backgroundColor: "var(--panel)", border: "1px solid var(--soft)", borderRadius: "5px",
      minHeight: "130px", maxHeight: "45vh", fontSize: "14px" },
    "&.cm-focused": { outline: "3px solid var(--focus)", outlineOffset: "2px" },
    ".cm-scroller": { fontFamily: "ui-monospace, monospace", overflow: "auto" },
    ".cm-content": { caretColor: "var(--ink)", minHeight: "120px" },
    ".cm-cursor": { borderLeftColor: "var(--ink)" },
    "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground":
      { backgroundColor: "color-mix(in srgb, var(--focus) 28%, transparent)" },
    ".cm-gutters": { backgroundColor: "var(--panel)", color: "var(--soft)", borderRight: "1px solid var(--line)" },
    ".cm-activeLine": { backgroundColor: "transparent" },
    ".cm-placeholder": { color: "var(--soft)" },
    ".cm-mistake": { textDecoration: "underline wavy 2px var(--bad)", backgroundColor: "color-mix(in srgb, var(--bad) 16%, transparent)" },
    ".cm-tooltip": { backgroundColor: "var(--paper)", color: "var(--ink)", border: "1px solid var(--soft)" },
    ".cm-tooltip-autocomplete > ul > li[aria-selected]": { backgroundColor: "var(--first)", color: "var(--paper)" },
  });

  async function complete(context) {
    const before = context.matchBefore(/[\w$."']+/);
    if (!before && !context.explicit) return null;
    const abort = new AbortController();
    context.addEventListener("abort", () => abort.abort());
    try {
      const answer = await post("api/complete", { sql: context.state.doc.toString(), cursor: context.pos }, abort.signal);
      const { from, words } = await answer.json();
      return { from, options: words.map((word) => ({ label: word })), validFor: /^[\w$]*$/ };
    } catch {
      // The page says by itself that the engine is away.
      return null;
    }
  }

  const run = () => {
    onRun();
    return true;
  };
  /** Replaces a selection itself: the browser would give the new text the old one's inline style, which the policy forbids. */
  function replaceSelection(event, view) {
    const { from, to, empty } = view.state.selection.main;
    if (event.inputType !== "insertText" || !event.data || empty || view.composing) return false;
    event.preventDefault();
    const change = () => view.state.update(view.state.replaceSelection(event.data), { userEvent: "input.type", scrollIntoView: true });
    const isTaken = view.state.facet(EditorView.inputHandler).some((handler) => handler(view, from, to, event.data, change));
    if (!isTaken) view.dispatch(change());
    return true;
  }

  const root = parent.attachShadow({ mode: "open" });
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      extensions: [
        cm.Prec.highest(cm.keymap.of([{ key: "Mod-Enter", run }])),
        cm.lineNumbers(), cm.history(), cm.drawSelection(), cm.highlightSpecialChars(), cm.bracketMatching(), cm.closeBrackets(),
        cm.placeholder("SELECT …"), cm.sql({ dialect: cm.PostgreSQL, upperCaseKeywords: true }),
        EditorState.languageData.of(() => [{ autocomplete: complete }]),
        cm.autocompletion({ override: [complete], icons: false }),
        cm.syntaxHighlighting(colors), theme, marks,
        EditorView.contentAttributes.of({ "aria-label": label, spellcheck: "false", autocapitalize: "off" }),
        EditorView.lineWrapping, EditorView.domEventHandlers({ beforeinput: replaceSelection }),
        cm.keymap.of([...cm.closeBracketsKeymap, ...cm.defaultKeymap, ...cm.historyKeymap, ...cm.completionKeymap]),
      ],
    }),
  });

  return {
    focus: () => view.focus(),
    text: () => view.state.doc.toString(),
    /** Returns the selected text and where it begins; the whole text if nothing is selected. */
    chosen() {
      const { from, to } = view.state.selection.main;
      return from === to ? { sql: view.state.doc.toString(), from: 0 } : { sql: view.state.sliceDoc(from, to), from };
    },
    set(text) {
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text }, selection: { anchor: text.length },
        scrollIntoView: true });
    },
    /** Marks the word at a place of the text; null removes the mark. */
    mark(at) {
      let value = Decoration.none;
      if (at !== null && view.state.doc.length) {
        const from = Math.min(at, view.state.doc.length - 1);
        const word = view.state.wordAt(from);
        value = Decoration.set([Decoration.mark({ class: "cm-mistake" }).range(from, Math.max(word?.to ?? 0, from + 1))]);
      }
      view.dispatch({ effects: setMark.of(value), ...(at !== null ? { selection: { anchor: Math.min(at, view.state.doc.length) },
        scrollIntoView: true } : {}) });
    },
  };
}
