//! `ts_headline`: the parts of a document that match a query, with their words highlighted.

use super::dictionary::Config;
use super::headline_options::Options;
use super::lexer::Lexer;
use super::matching::{Truth, holds};
use super::query::{Operand, Query};
use super::token::Kind;
use super::vector::Position;

/// The most tokens of a part that is searched for all operands.
const COVER_MAX: usize = 10_000;

/// A token of the document. One that matches several operands is repeated for each, as in PostgreSQL.
#[derive(Clone)]
struct Word<'t> {
    kind: Kind,
    text: &'t str,
    /// The place among the words that are searched.
    at: u16,
    /// The operand that it matches.
    operand: Option<usize>,
    is_repeated: bool,
    is_shown: bool,
}

impl Word<'_> {
    fn is_match(&self) -> bool {
        self.operand.is_some() && !self.is_repeated
    }

    /// True for tokens that are no words, and those that are shown as their parts.
    fn is_no_word(&self) -> bool {
        matches!(self.kind, Kind::Blank | Kind::Tag) || self.is_compound()
    }

    fn is_compound(&self) -> bool {
        matches!(self.kind, Kind::Url | Kind::NumHword | Kind::AsciiHword | Kind::Hword)
    }

    /// True if a headline should not begin or end here.
    fn is_bad_end(&self, short_word: usize) -> bool {
        use Kind::{Entity, Float, Int, Protocol, Scientific, Uint, Version};
        let is_number = matches!(self.kind, Scientific | Version | Float | Int | Uint | Protocol | Entity);
        (self.is_no_word() || is_number || self.text.len() <= short_word) && !self.is_match()
    }
}

/// Returns the headline of a document.
pub(super) fn headline(config: Config, document: &str, query: &Query, options: &Options) -> String {
    let mut page = Page { words: words(config, document, query), query, options };
    if options.all {
        page.show(0, page.words.len().saturating_sub(1));
    } else if options.fragments_max == 0 {
        let (first, last) = page.best();
        page.show(first, last);
    } else {
        page.fragments();
    }
    page.text()
}

fn words<'t>(config: Config, document: &'t str, query: &Query) -> Vec<Word<'t>> {
    let operands = query.operands();
    let mut all = Vec::new();
    let mut last: usize = 0;
    for token in Lexer::new(document) {
        let lexeme = config.dictionary(token.kind).and_then(|dictionary| {
            last += 1;
            dictionary.lexeme(token.text)
        });
        let is_match = |operand: &&&Operand| match &lexeme {
            Some(lexeme) if operand.is_prefix => lexeme.starts_with(&operand.text),
            Some(lexeme) => *lexeme == operand.text,
            None => false,
        };
        let mut matching = operands.iter().rev().filter(is_match).map(|operand| operand.id);
        let word = Word {
            kind: token.kind,
            text: token.text,
            at: Position::new(last).at,
            operand: matching.next(),
            is_repeated: false,
            is_shown: false,
        };
        let repeated = Word { is_repeated: true, ..word.clone() };
        all.push(word);
        all.extend(matching.map(|operand| Word { operand: Some(operand), ..repeated.clone() }));
    }
    all
}

struct Page<'p> {
    words: Vec<Word<'p>>,
    query: &'p Query,
    options: &'p Options,
}

/// A part of the document, with the numbers of its words and of those that match.
#[derive(Debug, Clone, Copy)]
struct Part {
    first: usize,
    last: usize,
    words: usize,
    matches: usize,
    is_excluded: bool,
}

impl Page<'_> {
    fn is_word(&self, at: usize) -> bool {
        self.words.get(at).is_some_and(|word| !word.is_no_word())
    }

    fn is_match(&self, at: usize) -> bool {
        self.words.get(at).is_some_and(Word::is_match)
    }

    fn has_operand(&self, at: usize) -> bool {
        self.words.get(at).is_some_and(|word| word.operand.is_some())
    }

    fn is_bad_end(&self, at: usize) -> bool {
        self.words.get(at).is_some_and(|word| word.is_bad_end(self.options.short_word))
    }

    fn is_shown(&self, at: usize) -> bool {
        self.words.get(at).is_some_and(|word| word.is_shown)
    }

    fn show(&mut self, first: usize, last: usize) {
        self.words.iter_mut().take(last + 1).skip(first).for_each(|word| word.is_shown = !word.is_repeated);
    }

    /// Returns the next word from a place on that matches an operand.
    fn next_match(&self, from: usize) -> Option<usize> {
        (from..self.words.len()).find(|at| self.has_operand(*at))
    }

    fn cover_max(&self) -> usize {
        let cover = self.options.words_max.saturating_mul(10).max(100);
        cover.saturating_mul(self.options.fragments_max.max(1)).min(COVER_MAX)
    }

    /// Returns the first shortest part from a place on that matches the query.
    fn cover(&self, from: usize) -> Option<(usize, usize)> {
        let node = self.query.0.as_ref()?;
        let mut first = self.next_match(from)?;
        loop {
            let limit = first.saturating_add(self.cover_max()).min(self.words.len());
            let ends: Vec<usize> = (first..limit).filter(|at| self.has_operand(*at)).collect();
            let matches = |end: &usize| {
                let words = self.words.get(first..=*end).unwrap_or_default();
                holds(node, &|operand, positions| found(words, operand, positions))
            };
            // Without negations a longer part matches if a shorter one does.
            let end = match node.has_negations() {
                true => ends.iter().position(matches),
                false => Some(ends.partition_point(|end| !matches(end))),
            };
            if let Some(end) = end.and_then(|at| ends.get(at)) {
                return Some((first, *end));
            }
            first = self.next_match(first + 1)?;
        }
    }

    /// Returns the beginning of the document.
    fn beginning(&self) -> (usize, usize) {
        let (mut count, mut last) = (0, 0);
        for at in 0..self.words.len() {
            if count >= self.options.words_min {
                break;
            }
            count += usize::from(self.is_word(at));
            last = at;
        }
        (0, last)
    }

    /// Returns the best part of the document.
    fn best(&self) -> (usize, usize) {
        let mut best: Option<(bool, usize, (usize, usize))> = None;
        let mut from = 0;
        while let Some((first, last)) = self.cover(from) {
            let (part, matches) = self.around(first, last);
            let has_cover = part.0 <= first && part.1 >= last;
            let is_better = best.is_none_or(|(had_cover, count, (_, end))| {
                (has_cover, matches) > (had_cover, count)
                    || ((has_cover, matches) == (had_cover, count)
                        && !self.is_bad_end(part.1)
                        && self.is_bad_end(end))
            });
            if is_better {
                best = Some((has_cover, matches, part));
            }
            from = first + 1;
        }
        best.map_or_else(|| self.beginning(), |(.., part)| part)
    }

    /// Returns a part with a cover that has neither too few nor too many words, and the number of its matches.
    fn around(&self, first: usize, last: usize) -> ((usize, usize), usize) {
        let Options { words_max, words_min, .. } = *self.options;
        let (mut count, mut matches) = (0, 0);
        let (mut start, mut end) = (first, first);
        let mut at = first;
        while at <= last && count < words_max {
            count += usize::from(self.is_word(at));
            matches += usize::from(self.is_match(at));
            end = at;
            at += 1;
        }
        if count >= words_max {
            let mut at = at.min(last);
            while count > words_min && self.is_bad_end(at) {
                count -= usize::from(self.is_word(at));
                matches -= usize::from(self.is_match(at));
                at = at.saturating_sub(1);
                end = at;
            }
            return ((start, end), matches);
        }
        let mut at = at.saturating_sub(1);
        while at < self.words.len() && count < words_max {
            if at > last {
                count += usize::from(self.is_word(at));
                matches += usize::from(self.is_match(at));
            }
            end = at;
            if !self.is_bad_end(at) && count >= words_min {
                break;
            }
            at += 1;
        }
        if count < words_min {
            start = 0;
            for at in (0..first).rev() {
                count += usize::from(self.is_word(at));
                matches += usize::from(self.is_match(at));
                if count >= words_max || (!self.is_bad_end(at) && count >= words_min) {
                    start = at;
                    break;
                }
            }
        }
        ((start, end), matches)
    }

    /// Shows the best fragments.
    fn fragments(&mut self) {
        let mut parts = self.parts();
        let mut count = 0;
        while count < self.options.fragments_max {
            let free = parts.iter().enumerate().filter(|(_, part)| !part.is_excluded);
            let best = free.min_by_key(|(_, part)| (std::cmp::Reverse(part.matches), part.words));
            let Some((_, part)) = best else { break };
            let (first, last) = self.stretched(*part);
            self.show(first, last);
            count += 1;
            for part in &mut parts {
                let overlaps = part.first <= last && part.last >= first;
                part.is_excluded |= overlaps;
            }
        }
        if count == 0 {
            let (first, last) = self.beginning();
            self.show(first, last);
        }
    }

    /// Returns the covers, cut into parts that have at most `MaxWords` words.
    fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut from = 0;
        while let Some((first, last)) = self.cover(from) {
            let mut start = first;
            while start <= last {
                let part = self.part(start, last);
                parts.push(part);
                start = part.last + 1;
            }
            from = first + 1;
        }
        parts
    }

    fn part(&self, first: usize, last: usize) -> Part {
        let first = (first..=last).find(|at| self.is_match(*at)).unwrap_or(last);
        let (mut words, mut matches, mut at) = (0, 0, first);
        while at <= last && words < self.options.words_max {
            words += usize::from(self.is_word(at));
            matches += usize::from(self.is_match(at));
            at += 1;
        }
        let mut end = last;
        if end > at {
            end = at;
            while end > first && !self.is_match(end) {
                words -= usize::from(self.is_word(end)).min(words);
                end -= 1;
            }
        }
        Part { first, last: end, words, matches, is_excluded: false }
    }

    /// Returns a part with more words on both sides, up to `MaxWords`.
    fn stretched(&self, part: Part) -> (usize, usize) {
        let words_max = self.options.words_max;
        let (mut first, mut last, mut count) = (part.first, part.last, part.words);
        if count >= words_max {
            return (first, last);
        }
        let stretch_max = (words_max - count) / 2;
        let (mut stretch, mut at) = (0, first);
        while at > 0 && stretch < stretch_max && !self.is_shown(at - 1) {
            at -= 1;
            count += usize::from(self.is_word(at));
            stretch += usize::from(self.is_word(at));
        }
        while at < first && self.is_bad_end(at) {
            count -= usize::from(self.is_word(at));
            at += 1;
        }
        first = at;
        let mut at = last;
        while at + 1 < self.words.len() && count < words_max && !self.is_shown(at + 1) {
            at += 1;
            count += usize::from(self.is_word(at));
        }
        while at > last && self.is_bad_end(at) {
            at -= 1;
        }
        last = at;
        (first, last)
    }

    fn text(&self) -> String {
        let Options { start, stop, delimiter, all, .. } = self.options;
        let mut out = String::new();
        let (mut fragments, mut is_within) = (0, false);
        for word in &self.words {
            if word.is_repeated {
                continue;
            }
            if !word.is_shown {
                is_within = false;
                continue;
            }
            if !is_within {
                is_within = true;
                fragments += 1;
                if fragments > 1 {
                    out.push_str(delimiter);
                }
            }
            if word.kind == Kind::Tag && !all {
                out.push(' ');
                continue;
            }
            if word.is_compound() {
                continue;
            }
            let (start, stop) = if word.is_match() { (start.as_str(), stop.as_str()) } else { ("", "") };
            out.extend([start, word.text, stop]);
        }
        out
    }
}

fn found(words: &[Word<'_>], operand: &Operand, positions: Option<&mut Vec<u32>>) -> Truth {
    let mut all = words.iter().filter(|word| word.operand == Some(operand.id));
    let Some(positions) = positions else {
        return if all.next().is_some() { Truth::Yes } else { Truth::No };
    };
    positions.extend(all.map(|word| u32::from(word.at)));
    positions.dedup();
    if positions.is_empty() { Truth::No } else { Truth::Yes }
}
