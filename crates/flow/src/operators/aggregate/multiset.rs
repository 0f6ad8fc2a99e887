//! The values of a group in order, each with its number of copies.
//!
//! Most groups have few values: a single one lies in the slot itself, a few lie in one sorted page. More
//! values are cut into pages of bounded size, so a change costs a search and a move within one page, however
//! many values there are. Weights are stored from the first duplicate value on.

use std::cmp::Ordering;
use std::fmt::Debug;

use millstream_state::Size;

/// The maximum number of values of a page.
const PAGE_VALUES: Size = Size::of(256);

/// Returns the minimum number of values of a page: a smaller one is merged with its neighbour, if both fit.
fn page_values_min() -> usize {
    PAGE_VALUES.get() / 4
}

/// A value of a multiset.
pub(super) trait Value: Clone + Debug + Send + Sync + 'static {
    /// Returns the heap bytes of the value.
    fn owned_bytes(&self) -> usize {
        0
    }
}

impl Value for Box<[u8]> {
    fn owned_bytes(&self) -> usize {
        self.len()
    }
}

/// Values in order, with their weights.
#[derive(Clone, Debug, Default)]
pub(super) enum Multiset<V> {
    #[default]
    None,
    One(V, i64),
    Page(Box<Page<V>>),
    Pages(Box<Pages<V>>),
}

impl<V: Value> Multiset<V> {
    /// Adds `weight` copies of a value, or removes them. `compare` compares a stored value with the wanted
    /// one; `make` creates the value if it isn't there. Returns the change of the multiset's heap bytes.
    pub(super) fn add(
        &mut self,
        weight: i64,
        compare: impl Fn(&V) -> Ordering,
        make: impl FnOnce() -> V,
    ) -> isize {
        if weight == 0 {
            return 0;
        }
        let change = match self {
            Multiset::None => {
                let value = make();
                let owned = value.owned_bytes() as isize;
                *self = Multiset::One(value, weight);
                return owned;
            }
            Multiset::One(value, kept) => match compare(value) {
                Ordering::Equal => {
                    *kept += weight;
                    if *kept != 0 {
                        return 0;
                    }
                    return self.clear();
                }
                _ => {
                    let page = Page { values: vec![value.clone()], weights: weights_of(*kept) };
                    let mut page = Box::new(page);
                    let owned = page.add(weight, compare, make) + page.allocated();
                    *self = Multiset::Page(page);
                    return owned;
                }
            },
            Multiset::Page(page) => {
                let before = page.allocated();
                page.add(weight, compare, make) + page.allocated() - before
            }
            Multiset::Pages(pages) => pages.add(weight, compare, make),
        };
        change + self.fit()
    }

    /// Switches to the form for the number of values.
    fn fit(&mut self) -> isize {
        match self {
            Multiset::Page(page) if page.values.len() > PAGE_VALUES.get() => {
                let before = page.allocated();
                let pages = Box::new(Pages::cut(std::mem::take(page)));
                let change = pages.allocated() - before;
                *self = Multiset::Pages(pages);
                change
            }
            Multiset::Page(page) if page.values.len() <= 1 => {
                let freed = page.allocated();
                let weight = page.weight(0);
                *self = page.values.pop().map_or(Multiset::None, |value| Multiset::One(value, weight));
                -freed
            }
            Multiset::Pages(pages) if pages.pages.len() <= 1 => {
                let before = pages.allocated();
                let page = pages.pages.pop().unwrap_or_default();
                let change = page.allocated() - before;
                *self = Multiset::Page(Box::new(page));
                change + self.fit()
            }
            _ => 0,
        }
    }

    /// Removes all values; returns the change of the heap bytes.
    pub(super) fn clear(&mut self) -> isize {
        let owned: usize = self.iter().map(|(value, _)| value.owned_bytes()).sum();
        let allocated = match self {
            Multiset::None | Multiset::One(..) => 0,
            Multiset::Page(page) => page.allocated(),
            Multiset::Pages(pages) => pages.allocated(),
        };
        *self = Multiset::None;
        -(owned as isize) - allocated
    }

    /// Returns the pages in order.
    fn pages(&self) -> &[Page<V>] {
        match self {
            Multiset::None | Multiset::One(..) => &[],
            Multiset::Page(page) => std::slice::from_ref(page),
            Multiset::Pages(pages) => &pages.pages,
        }
    }

    /// Returns the least value.
    pub(super) fn first(&self) -> Option<&V> {
        match self {
            Multiset::One(value, _) => Some(value),
            others => others.pages().first()?.values.first(),
        }
    }

    /// Returns the greatest value.
    pub(super) fn last(&self) -> Option<&V> {
        match self {
            Multiset::One(value, _) => Some(value),
            others => others.pages().last()?.values.last(),
        }
    }

    /// Returns the number of values, including copies.
    pub(super) fn count(&self) -> i64 {
        match self {
            Multiset::None => 0,
            Multiset::One(_, weight) => *weight,
            others => others.pages().iter().map(Page::count).sum(),
        }
    }

    /// Returns the values in order from a place on, the first of them with the number of its copies from that
    /// place on.
    pub(super) fn iter_from(&self, place: i64) -> impl Iterator<Item = (&V, i64)> {
        // Whole pages are skipped by their counts.
        let (mut skipped, mut first) = (0, 0);
        for page in self.pages() {
            let count = page.count();
            if skipped + count > place {
                break;
            }
            skipped += count;
            first += 1;
        }
        let one = match self {
            Multiset::One(value, weight) => Some((value, *weight)),
            _ => None,
        };
        let paged = self.pages()[first..]
            .iter()
            .flat_map(|page| page.values.iter().enumerate().map(|(at, value)| (value, page.weight(at))));
        let mut before = place - skipped;
        one.into_iter().chain(paged).filter_map(move |(value, weight)| {
            let passed = before.min(weight).max(0);
            before -= passed;
            (weight > passed).then_some((value, weight - passed))
        })
    }

    /// Returns the values in order, with their weights.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&V, i64)> {
        let one = match self {
            Multiset::One(value, weight) => Some((value, *weight)),
            _ => None,
        };
        let paged = self
            .pages()
            .iter()
            .flat_map(|page| page.values.iter().enumerate().map(|(at, value)| (value, page.weight(at))));
        one.into_iter().chain(paged)
    }
}

/// Returns the weights of a single value; an empty list means that all are 1.
fn weights_of(weight: i64) -> Vec<i64> {
    if weight == 1 { Vec::new() } else { vec![weight] }
}

/// Some values in order.
#[derive(Clone, Debug)]
pub(super) struct Page<V> {
    values: Vec<V>,
    /// One weight per value; empty if all are 1.
    weights: Vec<i64>,
}

impl<V> Default for Page<V> {
    fn default() -> Page<V> {
        Page { values: Vec::new(), weights: Vec::new() }
    }
}

impl<V: Value> Page<V> {
    fn weight(&self, at: usize) -> i64 {
        self.weights.get(at).copied().unwrap_or(1)
    }

    fn count(&self) -> i64 {
        match self.weights.is_empty() {
            true => self.values.len() as i64,
            false => self.weights.iter().sum(),
        }
    }

    /// Returns the bytes of the boxed page, without the heap bytes of its values.
    fn allocated(&self) -> isize {
        self.heap() + size_of::<Page<V>>() as isize
    }

    /// Returns the bytes of its vectors.
    fn heap(&self) -> isize {
        (self.values.capacity() * size_of::<V>() + self.weights.capacity() * size_of::<i64>()) as isize
    }

    /// Adds a value; returns the change of the values' heap bytes.
    fn add(&mut self, weight: i64, compare: impl Fn(&V) -> Ordering, make: impl FnOnce() -> V) -> isize {
        match self.values.binary_search_by(compare) {
            Err(at) => {
                let value = make();
                let owned = value.owned_bytes() as isize;
                self.values.insert(at, value);
                if weight != 1 && self.weights.is_empty() {
                    self.weights = vec![1; self.values.len()];
                    self.weights[at] = weight;
                } else if !self.weights.is_empty() {
                    self.weights.insert(at, weight);
                }
                owned
            }
            Ok(at) => {
                let now = self.weight(at) + weight;
                if now == 0 {
                    if !self.weights.is_empty() {
                        self.weights.remove(at);
                    }
                    return -(self.values.remove(at).owned_bytes() as isize);
                }
                if self.weights.is_empty() {
                    self.weights = vec![1; self.values.len()];
                }
                self.weights[at] = now;
                0
            }
        }
    }

    /// Splits off the values from `at` on into a page of their own.
    fn split_off(&mut self, at: usize) -> Page<V> {
        let weights = if self.weights.is_empty() { Vec::new() } else { self.weights.split_off(at) };
        let values = self.values.split_off(at);
        // One value too many has doubled the capacity.
        self.values.shrink_to(PAGE_VALUES.get());
        self.weights.shrink_to(PAGE_VALUES.get());
        Page { values, weights }
    }

    /// Appends the values of the next page.
    fn append(&mut self, mut next: Page<V>) {
        if !(self.weights.is_empty() && next.weights.is_empty()) {
            self.weights.resize(self.values.len(), 1);
            self.weights.extend((0..next.values.len()).map(|at| next.weight(at)));
        }
        self.values.append(&mut next.values);
    }
}

/// Many values in order.
#[derive(Clone, Debug)]
pub(super) struct Pages<V> {
    /// The pages, none of which is empty.
    pages: Vec<Page<V>>,
}

impl<V: Value> Pages<V> {
    /// Splits a page that has grown too large.
    fn cut(mut page: Page<V>) -> Pages<V> {
        let rest = page.split_off(page.values.len() / 2);
        Pages { pages: vec![page, rest] }
    }

    fn allocated(&self) -> isize {
        self.pages.iter().map(Page::heap).sum::<isize>() + self.vector()
    }

    /// Returns the bytes of the struct and of its vector.
    fn vector(&self) -> isize {
        (self.pages.capacity() * size_of::<Page<V>>() + size_of::<Pages<V>>()) as isize
    }

    /// Adds a value; returns the change of the heap bytes.
    fn add(&mut self, weight: i64, compare: impl Fn(&V) -> Ordering, make: impl FnOnce() -> V) -> isize {
        let begins = |page: &Page<V>| page.values.first().is_some_and(|value| compare(value).is_le());
        let at = self.pages.partition_point(begins).saturating_sub(1);
        let vector = self.vector();
        let page = &mut self.pages[at];
        let before = page.heap();
        let owned = page.add(weight, compare, make) + page.heap() - before;
        let fitted = match page.values.len() {
            count if count > PAGE_VALUES.get() => self.split(at),
            count if count == 0 || count < page_values_min() => self.merge(at),
            _ => 0,
        };
        owned + fitted + self.vector() - vector
    }

    /// Splits a page in two; returns the growth in bytes.
    fn split(&mut self, at: usize) -> isize {
        let last = at + 1 == self.pages.len();
        let page = &mut self.pages[at];
        let (before, count) = (page.heap(), page.values.len());
        // Values that arrive in ascending order fill their pages.
        let rest = page.split_off(if last { count - 1 } else { count / 2 });
        let change = page.heap() + rest.heap() - before;
        self.pages.insert(at + 1, rest);
        change
    }

    /// Merges a small page with its smaller neighbour; returns the growth in bytes.
    fn merge(&mut self, at: usize) -> isize {
        // A missing page counts as larger than any, so an empty page merges with its neighbour even if that
        // is full.
        let count = |at: usize| self.pages.get(at).map_or(usize::MAX, |page| page.values.len());
        let before = at.checked_sub(1).map_or(usize::MAX, count);
        let first = if before < count(at + 1) { at - 1 } else { at };
        if count(first) + count(first + 1) > PAGE_VALUES.get() / 2 && count(at) > 0 {
            return 0;
        }
        let next = self.pages.remove(first + 1);
        let before = self.pages[first].heap() + next.heap();
        self.pages[first].append(next);
        self.pages[first].heap() - before
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::Random;
    use super::*;

    impl Value for u32 {}

    /// Recomputes the heap bytes of a multiset.
    fn owned<V: Value>(kept: &Multiset<V>) -> isize {
        match kept {
            Multiset::None => 0,
            Multiset::One(value, _) => value.owned_bytes() as isize,
            Multiset::Page(page) => {
                page.allocated() + page.values.iter().map(|value| value.owned_bytes() as isize).sum::<isize>()
            }
            Multiset::Pages(pages) => {
                let values = pages.pages.iter().flat_map(|page| &page.values);
                pages.allocated() + values.map(|value| value.owned_bytes() as isize).sum::<isize>()
            }
        }
    }

    /// Compares a multiset with a map under random changes: first mostly inserts, then mostly deletes.
    fn check<V: Value + Ord>(value: impl Fn(u32) -> V, range: u64, changes: u32, seed: u64) {
        let mut random = Random(seed);
        let mut kept = Multiset::<V>::default();
        let mut expected = BTreeMap::<u32, i64>::new();
        let mut bytes = 0;
        let wave = (changes / 3).max(1);
        for change in 0..changes {
            let growing = (change / wave).is_multiple_of(2);
            let comes = expected.is_empty() || random.below(8) < if growing { 6 } else { 1 };
            let number = random.below(range) as u32;
            let number = match expected.range(number..).chain(&expected).next() {
                Some((number, _)) if !comes => *number,
                _ => number,
            };
            let weight = if comes { 1 + (random.below(9) / 8) as i64 } else { -1 };
            let wanted = value(number);
            bytes += kept.add(weight, |other| other.cmp(&wanted), || wanted.clone());
            let count = expected.entry(number).or_default();
            *count += weight;
            if *count == 0 {
                expected.remove(&number);
            }
            if change % (wave / 50 + 1) == 0 || expected.len() < 4 {
                let expected: Vec<(V, i64)> =
                    expected.iter().map(|(number, count)| (value(*number), *count)).collect();
                let found: Vec<(V, i64)> = kept.iter().map(|(value, count)| (value.clone(), count)).collect();
                assert!(found == expected, "{found:?} instead of {expected:?}");
                assert!(kept.first() == expected.first().map(|(value, _)| value));
                assert!(kept.last() == expected.last().map(|(value, _)| value));
                assert_eq!(bytes, owned(&kept));
                let count: i64 = expected.iter().map(|(_, count)| count).sum();
                assert_eq!(kept.count(), count);
                let place = random.below(count as u64 + 1) as i64;
                let rest: i64 = kept.iter_from(place).map(|(_, count)| count).sum();
                assert_eq!(rest, count - place);
                let last = kept.iter_from(place).last().map(|(value, _)| value);
                assert!(rest == 0 || last == kept.last());
            }
        }
        bytes += kept.clear();
        assert_eq!((bytes, kept.iter().count()), (0, 0));
    }

    #[test]
    fn values_are_in_order_and_counted() {
        let text = |number: u32| format!("{number:010}").into_bytes().into_boxed_slice();
        for (range, changes) in [(1, 60), (3, 300), (300, 3_000), (3_000, 12_000), (1_000_000, 12_000)] {
            for seed in 1..4 {
                check(|number| number, range, changes, seed);
                check(text, range, changes, seed);
            }
        }
    }

    #[test]
    fn an_empty_page_beside_a_full_one_goes() {
        let mut kept = Multiset::<u32>::default();
        let last = PAGE_VALUES.get() as u32 + PAGE_VALUES.get() as u32 / 2;
        (0..=last).for_each(|number| _ = kept.add(1, |other| other.cmp(&number), || number));
        assert_eq!(kept.pages().last().map(|page| page.values.len()), Some(1));
        kept.add(-1, |other| other.cmp(&last), || last);
        assert_eq!((kept.last(), kept.count()), (Some(&(last - 1)), i64::from(last)));
    }

    #[test]
    fn what_comes_in_order_fills_its_pages() {
        let mut kept = Multiset::<u32>::default();
        let mut bytes = 0;
        for number in 0..100_000_u32 {
            bytes += kept.add(1, |other| other.cmp(&number), || number);
        }
        assert!(bytes < 100_000 * 6, "{bytes} bytes");
        assert!(kept.iter().map(|(value, _)| *value).eq(0..100_000));
    }
}
