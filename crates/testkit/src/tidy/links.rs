//! The links of Markdown files, and the pages of the documentation's site.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{read, shown, texts};

/// Returns the relative links that lead to no file, or to no heading of it.
pub(super) fn links(root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in texts(root, &["md"]) {
        let folder = path.parent().unwrap_or(root);
        for target in link_targets(&text) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() { path.clone() } else { folder.join(file) };
            let is_there = to.exists()
                && (anchor.is_empty()
                    || to.extension().is_none_or(|kind| kind != "md")
                    || anchors(&read(&to)).contains(anchor));
            if !is_there {
                wrong.push(format!("{}: the link to {target} leads nowhere", shown(root, &path)));
            }
        }
    }
    wrong
}

/// Returns the pages of the documentation that its site leaves out.
pub(super) fn book(root: &Path) -> Vec<String> {
    let docs = root.join("docs");
    let summary = read(&docs.join("SUMMARY.md"));
    let listed: BTreeSet<&str> = link_targets(&summary).into_iter().collect();
    let pages = texts(&docs, &["md"]).into_iter().map(|(path, _)| shown(&docs, &path));
    let missing = pages.filter(|page| page != "SUMMARY.md" && !listed.contains(page.as_str()));
    missing.map(|page| format!("docs/SUMMARY.md: {page} is missing")).collect()
}

/// Returns the lines of a Markdown text outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_fenced = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    })
}

/// Returns the targets of the relative links in a Markdown text.
fn link_targets(text: &str) -> Vec<&str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1));
    let targets = targets.map(|rest| rest.split(')').next().unwrap_or_default());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// Returns the anchors of the headings of a Markdown text, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut all = BTreeSet::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let anchor = anchor(line.trim_start_matches('#').trim());
        let count = counts.entry(anchor.clone()).or_default();
        all.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
        *count += 1;
    }
    all
}

/// Returns the anchor of a heading.
fn anchor(heading: &str) -> String {
    // Of a link, the text counts.
    let mut text = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let kept = text
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_code_are_left_alone() {
        let text = "[a](b.md#c) and [d](https://e)\n```\n[f](g)\n```\n[h](../i)";
        assert_eq!(link_targets(text), ["b.md#c", "../i"]);
    }

    #[test]
    fn headings_have_anchors() {
        let text = "# A `b`, c\n## A b c\n```\n# no\n```\n## [Link](x.md): d_e";
        let expected = ["a-b-c", "a-b-c-1", "link-d_e"].map(String::from);
        assert_eq!(anchors(text), BTreeSet::from(expected));
    }
}
