//! Finds the match of a pattern from a given row, the one that SQL prefers. It tries the branches of the
//! program in order, and backtracks from those that fail.
//!
//! A step that failed at a row is not tried there again. If conditions depend only on the row and its
//! neighbours, that holds for any rows matched before, and for later searches. A partition then costs its
//! rows times the program's steps. If conditions depend on the rows matched so far, that only holds for these
//! rows. A search may then take a number of steps without bound, and fails with an error if there are too
//! many.

use datafusion::error::Result;

use super::pattern::{MatchedRow, Program, Step};
use crate::error::Error;

/// The most evaluations of match-dependent conditions in one search.
const ASKED_MAX: usize = 1_000_000;

/// Decides if a row may be mapped to a variable.
pub(super) trait Conditions {
    /// Returns true if the last of these rows, counted from `start`, may be mapped like this.
    fn holds(&mut self, start: usize, taken: &[MatchedRow]) -> Result<bool>;
}

/// The input that the conditions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depends {
    /// The row and its neighbours.
    Row,
    /// Also the start of the match.
    Start,
    /// Also all rows matched so far.
    Match,
}

/// Searches the rows of one partition, from earlier rows to later ones.
pub(super) struct Search<'a> {
    program: &'a Program,
    depends: Depends,
    rows: usize,
    /// The steps that were tried at each row, one bit each.
    tried: Vec<Vec<u64>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(program: &'a Program, depends: Depends, rows: usize) -> Search<'a> {
        Search { program, depends, rows, tried: vec![Vec::new(); rows + 1] }
    }

    /// Returns the match that begins at this row, as the mapping of each of its rows.
    pub(super) fn from(
        &mut self,
        start: usize,
        conditions: &mut dyn Conditions,
    ) -> Result<Option<Vec<MatchedRow>>> {
        let (mut taken, mut ways, mut asked, mut furthest) = (Vec::new(), vec![(0, 0)], 0, 0);
        let mut found = false;
        while let Some((step, count)) = ways.pop() {
            taken.truncate(count);
            let row = start + count;
            if !self.is_new(step, row) {
                continue;
            }
            match self.program.steps[step] {
                Step::Found => {
                    found = true;
                    break;
                }
                Step::Either(first, second) => ways.extend([(second, count), (first, count)]),
                Step::Jump(to) => ways.push((to, count)),
                Step::Start if row > 0 => {}
                Step::End if row < self.rows => {}
                Step::Start | Step::End => ways.push((step + 1, count)),
                Step::Row(_) if row == self.rows => {}
                Step::Row(next) => {
                    asked += 1;
                    self.check(asked)?;
                    taken.push(next);
                    if conditions.holds(start, &taken)? {
                        furthest = furthest.max(count + 1);
                        if self.depends == Depends::Match {
                            self.tried[row + 1].clear();
                        }
                        ways.push((step + 1, count + 1));
                    }
                }
            }
        }
        // Marks only stay after a failed search whose conditions depend on the row alone. The steps of a
        // match may succeed from other starts too.
        if found || self.depends != Depends::Row {
            self.tried[start..=start + furthest].iter_mut().for_each(Vec::clear);
        }
        Ok(found.then_some(taken))
    }

    fn is_new(&mut self, step: usize, row: usize) -> bool {
        let (word, bit) = (step / 64, 1 << (step % 64));
        let tried = &mut self.tried[row];
        if tried.is_empty() {
            tried.resize(self.program.steps.len().div_ceil(64), 0);
        }
        let new = tried[word] & bit == 0;
        tried[word] |= bit;
        new
    }

    fn check(&self, asked: usize) -> Result<()> {
        if self.depends != Depends::Match || asked <= ASKED_MAX {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "MATCH_RECOGNIZE: a match was not found in {ASKED_MAX} steps: DEFINE looks at the rows that were matched so \
             far, and PATTERN has too many ways to match them"
        ))
        .hint("Give quantifiers bounds ({1,10}), PARTITION BY more, or define variables by PREV and NEXT of the row.")
        .into())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::{SetExpr, Statement, TableFactor};
    use datafusion::sql::sqlparser::parser::Parser;
    use millstream_seeds::Random;

    use super::*;
    use crate::reader::TokenReader;
    use crate::tokens::DIALECT;

    fn program(pattern: &str) -> Program {
        let sql = format!("SELECT * FROM t MATCH_RECOGNIZE (PATTERN ({pattern}) DEFINE x AS TRUE)");
        let tokens = crate::row_pattern::rewrite(TokenReader::new(&sql).unwrap().rest_tokens());
        let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
        let statement = parser.parse_statement().unwrap();
        let Statement::Query(query) = statement else { panic!("{sql}") };
        let SetExpr::Select(mut select) = *query.body else { panic!("{sql}") };
        match select.from.remove(0).relation {
            TableFactor::MatchRecognize { pattern, .. } => Program::new(&pattern).unwrap(),
            other => panic!("{other}"),
        }
    }

    /// A row maps to one letter, or to several variables: `A` is a's, `2` is a's and b's, `3` is b's and c's.
    struct Letters<'a>(&'a str, &'a [String]);

    impl Conditions for Letters<'_> {
        fn holds(&mut self, start: usize, taken: &[MatchedRow]) -> Result<bool> {
            let variable = taken.last().unwrap().variable;
            let letters = match self.0.as_bytes()[start + taken.len() - 1] {
                b'2' => "ab".to_string(),
                b'3' => "bc".to_string(),
                letter => (letter as char).to_lowercase().to_string(),
            };
            Ok(letters.contains(self.1[variable].as_str()))
        }
    }

    fn found(pattern: &str, rows: &str, depends: Depends) -> Vec<Option<String>> {
        let program = program(pattern);
        let mut search = Search::new(&program, depends, rows.len());
        let text =
            |taken: Vec<MatchedRow>| taken.iter().map(|t| program.variables[t.variable].clone()).collect();
        let mut letters = Letters(rows, &program.variables);
        (0..rows.len()).map(|start| search.from(start, &mut letters).unwrap().map(text)).collect()
    }

    #[track_caller]
    fn check(pattern: &str, rows: &str, expected: &str) {
        for depends in [Depends::Row, Depends::Start, Depends::Match] {
            let first = found(pattern, rows, depends).swap_remove(0);
            assert_eq!(first.unwrap_or_else(|| "-".into()), expected, "{pattern} in {rows}");
        }
    }

    #[test]
    fn the_preferred_match_is_found() {
        check("a b", "ABC", "ab");
        check("a b", "ACB", "-");
        check("a* b", "AA2B", "aaab");
        check("a*? b", "AA2B", "aab");
        check("a+", "BA", "-");
        check("a*", "BA", "");
        check("a?? b", "2B", "b");
        check("(a | b)+", "2BC", "ab");
        check("(b | a)+", "2BC", "bb");
        check("a{2}", "AAA", "aa");
        check("a{2,}", "AAA", "aaa");
        check("a{,2}", "AAA", "aa");
        check("a{1,2}?", "AAA", "a");
        check("a{2,3} a", "AAA", "aaa");
        check("^ a", "AA", "a");
        check("a $", "AA", "-");
        check("a+ $", "AA", "aa");
        check("PERMUTE(a, b, c)", "CAB", "cab");
        check("PERMUTE(a, b)", "22", "ab");
        check("(a? b?)*", "BAABC", "baab");
        check("(a*)+ b", "AAB", "aab");
        check("((a | b) c)* a", "ACBCA", "acbca");
        check("a {- b | c -}+ c", "ABBC", "abbc");
    }

    #[test]
    fn anchors_hold_at_the_ends_only() {
        assert_eq!(found("^ a", "AA", Depends::Row), [Some("a".into()), None]);
        assert_eq!(found("a $", "AA", Depends::Row), [None, Some("a".into())]);
    }

    /// A pattern as a tree, which returns all its matches in SQL's order of preference by plain recursion.
    enum Tree {
        Variable(char),
        All(Vec<Tree>),
        Any(Vec<Tree>),
        Times { tree: Box<Tree>, least: usize, most: usize, greedy: bool },
    }

    impl Tree {
        fn random(next: &mut dyn FnMut(usize) -> usize, depth: usize) -> Tree {
            let some = |next: &mut dyn FnMut(usize) -> usize| {
                (0..1 + next(3)).map(|_| Tree::random(next, depth - 1)).collect::<Vec<_>>()
            };
            match if depth == 0 { 0 } else { next(5) } {
                0 | 1 => Tree::Variable(['a', 'b', 'c'][next(3)]),
                2 => Tree::All(some(next)),
                3 => Tree::Any(some(next)),
                _ => {
                    let (least, more) = (next(3), next(3));
                    let most = if more == 2 { usize::MAX } else { (least + more).max(1) };
                    let tree = Box::new(Tree::random(next, depth - 1));
                    Tree::Times { tree, least, most, greedy: next(2) == 0 }
                }
            }
        }

        fn text(&self) -> String {
            let all = |trees: &[Tree], between: &str| {
                format!("({})", trees.iter().map(Tree::text).collect::<Vec<_>>().join(between))
            };
            match self {
                Tree::Variable(name) => name.to_string(),
                Tree::All(trees) => all(trees, " "),
                Tree::Any(trees) => all(trees, " | "),
                Tree::Times { tree, least, most, greedy } => {
                    let most = if *most == usize::MAX { String::new() } else { most.to_string() };
                    format!("({}){{{least},{most}}}{}", tree.text(), if *greedy { "" } else { "?" })
                }
            }
        }

        /// Adds the possible continuations of these letters, in order.
        fn after(&self, rows: &str, so_far: &str, out: &mut Vec<String>) {
            match self {
                Tree::Variable(name) => {
                    let letters = rows.as_bytes().get(so_far.len()).map(|row| match row {
                        b'2' => "ab".to_string(),
                        b'3' => "bc".to_string(),
                        letter => (*letter as char).to_lowercase().to_string(),
                    });
                    if letters.is_some_and(|letters| letters.contains(*name)) {
                        out.push(format!("{so_far}{name}"));
                    }
                }
                Tree::All(trees) => match trees.split_first() {
                    None => out.push(so_far.to_string()),
                    Some((first, rest)) => {
                        let mut between = Vec::new();
                        first.after(rows, so_far, &mut between);
                        for so_far in between {
                            Tree::follow(rest, rows, &so_far, out);
                        }
                    }
                },
                Tree::Any(trees) => trees.iter().for_each(|tree| tree.after(rows, so_far, out)),
                Tree::Times { tree, least, most, greedy } => {
                    tree.times(rows, so_far, (*least, *most, *greedy), out);
                }
            }
        }

        fn follow(trees: &[Tree], rows: &str, so_far: &str, out: &mut Vec<String>) {
            match trees.split_first() {
                None => out.push(so_far.to_string()),
                Some((first, rest)) => {
                    let mut between = Vec::new();
                    first.after(rows, so_far, &mut between);
                    between.iter().for_each(|so_far| Tree::follow(rest, rows, so_far, out));
                }
            }
        }

        fn times(
            &self,
            rows: &str,
            so_far: &str,
            (least, most, greedy): (usize, usize, bool),
            out: &mut Vec<String>,
        ) {
            if least == 0 && !greedy {
                out.push(so_far.to_string());
            }
            if most > 0 {
                let mut between = Vec::new();
                self.after(rows, so_far, &mut between);
                for next in between {
                    // An unbounded repetition ignores rounds that take no row.
                    if next.len() > so_far.len() || least > 0 || most < usize::MAX {
                        let most = if most == usize::MAX { most } else { most - 1 };
                        self.times(rows, &next, (least.saturating_sub(1), most, greedy), out);
                    }
                }
            }
            if least == 0 && greedy {
                out.push(so_far.to_string());
            }
        }
    }

    #[test]
    fn it_finds_what_trying_everything_finds() {
        let mut random = Random(7);
        let mut next = move |below| random.index(below);
        for _ in 0..3000 {
            let tree = Tree::random(&mut next, 3);
            let rows: String = (0..1 + next(7)).map(|_| ['A', 'B', 'C', '2', '3'][next(5)]).collect();
            let expected: Vec<Option<String>> = (0..rows.len())
                .map(|start| {
                    let mut all = Vec::new();
                    tree.after(&rows[start..], "", &mut all);
                    all.into_iter().next()
                })
                .collect();
            for depends in [Depends::Row, Depends::Match] {
                assert_eq!(found(&tree.text(), &rows, depends), expected, "{} in {rows}", tree.text());
            }
        }
    }
}
