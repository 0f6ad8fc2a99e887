//! Moments compared with integers, and with themselves in another order.

use millstream_seeds::Random;

use super::*;

/// Returns a float of one kind: any, special, small, tiny, huge.
fn random_float(random: &mut Random, kind: usize) -> f64 {
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 5e-324, f64::MAX];
    match kind {
        0 => f64::from_bits(random.bits() & !(1 << 62)),
        1 if random.index(4) == 0 => special[random.index(special.len())],
        3 => random.index(1000) as f64 * 5e-324,
        4 => 1e308 - random.index(100) as f64 * 1e306,
        _ => random.index(2000) as f64 / 7.0 - 100.0,
    }
}

fn random_pairs(random: &mut Random, kind: usize) -> Vec<(f64, f64)> {
    let count = 1 + random.index(20);
    (0..count)
        .map(|_| (random_float(random, kind), random_float(random, if kind == 0 { 1 } else { kind })))
        .collect()
}

fn of(pairs: &[(f64, f64)]) -> Moments {
    let mut moments = Moments::default();
    pairs.iter().for_each(|(first, second)| moments.add_pair(*first, *second, 1));
    moments
}

/// Returns the bits of all statistics.
fn all(moments: &Moments) -> Vec<Option<u64>> {
    let bits = |x: f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
    Statistic::ALL.iter().map(|(statistic, _)| statistic.of(moments).map(bits)).collect()
}

#[test]
fn order_split_merge_code_and_what_was_taken_back_do_not_show() {
    let mut random = Random(5);
    for round in 0..3000 {
        let mut pairs = random_pairs(&mut random, round % 5);
        let expected = all(&of(&pairs));
        random.shuffle(&mut pairs);
        let (left, right) = pairs.split_at(random.index(pairs.len() + 1));
        let kind = random.index(5);
        let extra = random_pairs(&mut random, kind);
        let mut merged = of(left);
        let mut other = of(right);
        extra.iter().for_each(|(first, second)| other.add_pair(*first, *second, 3));
        let mut list = Vec::new();
        other.encode(&mut list);
        merged.merge(&Moments::decode(&list).unwrap());
        extra.iter().for_each(|(first, second)| merged.add_pair(*first, *second, -3));
        assert_eq!(all(&merged), expected, "{pairs:?}");
    }
    assert!(Moments::decode(&[]).is_none());
    assert!(Moments::decode(&[1.0, 5.0, 0.0]).is_none());
}

#[test]
fn small_integers_give_what_integers_give() {
    let mut random = Random(6);
    for _ in 0..2000 {
        let pairs: Vec<(i64, i64)> = (0..2 + random.index(9))
            .map(|_| (random.index(2000) as i64 - 1000, random.index(50) as i64))
            .collect();
        let floats: Vec<(f64, f64)> = pairs.iter().map(|(y, x)| (*y as f64, *x as f64)).collect();
        let moments = of(&floats);
        let n = pairs.len() as i64;
        let sum = |f: &dyn Fn(&(i64, i64)) -> i64| pairs.iter().map(f).sum::<i64>();
        let (sum_x, sum_y) = (sum(&|p| p.1), sum(&|p| p.0));
        let spread_x = n * sum(&|p| p.1 * p.1) - sum_x * sum_x;
        let spread_y = n * sum(&|p| p.0 * p.0) - sum_y * sum_y;
        let cross = n * sum(&|p| p.0 * p.1) - sum_x * sum_y;
        let ratio = |a: i64, b: i64| a as f64 / b as f64;
        let check = |statistic: Statistic, expected: Option<f64>| {
            assert_eq!(statistic.of(&moments), expected, "{statistic:?} of {pairs:?}");
        };
        check(Statistic::VarPop, Some(ratio(spread_y, n * n)));
        check(Statistic::VarSamp, Some(ratio(spread_y, n * (n - 1))));
        check(Statistic::CovarPop, Some(ratio(cross, n * n)));
        check(Statistic::CovarSamp, Some(ratio(cross, n * (n - 1))));
        check(Statistic::RegrCount, Some(n as f64));
        check(Statistic::RegrAvgX, Some(ratio(sum_x, n)));
        check(Statistic::RegrAvgY, Some(ratio(sum_y, n)));
        check(Statistic::RegrSxx, Some(ratio(spread_x, n)));
        check(Statistic::RegrSyy, Some(ratio(spread_y, n)));
        check(Statistic::RegrSxy, Some(ratio(cross, n)));
        let line = spread_x != 0;
        check(Statistic::RegrSlope, line.then(|| ratio(cross, spread_x)));
        let dividend = sum_y * sum(&|p| p.1 * p.1) - sum_x * sum(&|p| p.0 * p.1);
        check(Statistic::RegrIntercept, line.then(|| ratio(dividend, spread_x)));
        let both = line && spread_y != 0;
        let corr = Statistic::Corr.of(&moments);
        assert_eq!(corr.is_some(), both);
        if let (Some(corr), Some(square)) = (corr, Statistic::RegrR2.of(&moments)) {
            assert!((corr * corr - square).abs() < 1e-15 && corr.abs() <= 1.0);
            let plain = cross as f64 / (spread_x as f64).sqrt() / (spread_y as f64).sqrt();
            assert!((corr - plain).abs() < 1e-14);
        }
    }
}

#[test]
fn what_floating_point_loses_is_kept() {
    let numbers = |numbers: &[f64]| {
        let mut moments = Moments::default();
        numbers.iter().for_each(|x| moments.add(*x, 1));
        moments
    };
    // The variance is the same at any distance from zero.
    let far = numbers(&[2f64.powi(52), 2f64.powi(52) + 1.0, 2f64.powi(52) + 2.0]);
    assert_eq!(Statistic::VarSamp.of(&far), Some(1.0));
    assert_eq!(Statistic::VarPop.of(&numbers(&[0.1; 7])), Some(0.0));
    // Squares that no float holds.
    assert_eq!(Statistic::StddevPop.of(&numbers(&[1e300, -1e300])), Some(1e300));
    assert_eq!(Statistic::VarPop.of(&numbers(&[1e300, -1e300])), Some(f64::INFINITY));
    assert_eq!(Statistic::StddevPop.of(&numbers(&[5e-324, -5e-324])), Some(5e-324));
    assert_eq!(Statistic::VarPop.of(&numbers(&[5e-324, -5e-324])), Some(0.0));
    let line: Vec<(f64, f64)> = (0..9).map(|n| (n as f64 * 2e-300, n as f64 * 1e-300)).collect();
    assert_eq!(Statistic::RegrSlope.of(&of(&line)), Some(2.0));
    assert_eq!(Statistic::Corr.of(&of(&line)), Some(1.0));
    let down: Vec<(f64, f64)> = (0..9).map(|n| (n as f64 * -0.1, n as f64 * 1e200)).collect();
    assert!(Statistic::Corr.of(&of(&down)).is_some_and(|corr| (-1.0..-0.999).contains(&corr)));
}

#[test]
fn corner_cases_are_those_of_the_query_engine() {
    let none = Moments::default();
    let single = of(&[(3.0, 4.0)]);
    for (statistic, _) in Statistic::ALL {
        let counts = statistic == Statistic::RegrCount;
        assert_eq!(statistic.of(&none), counts.then_some(0.0), "{statistic:?}");
        let expected = match statistic {
            Statistic::RegrCount => Some(1.0),
            Statistic::RegrAvgX => Some(4.0),
            Statistic::RegrAvgY => Some(3.0),
            Statistic::VarPop | Statistic::StddevPop | Statistic::CovarPop => Some(0.0),
            Statistic::RegrSxx | Statistic::RegrSyy | Statistic::RegrSxy => Some(0.0),
            _ => None,
        };
        assert_eq!(statistic.of(&single), expected, "{statistic:?}");
        assert_eq!(Statistic::of_name(statistic.name()), Some(statistic));
    }
    let flat = of(&[(1.0, 2.0), (5.0, 2.0)]);
    for statistic in [Statistic::RegrSlope, Statistic::RegrIntercept, Statistic::RegrR2, Statistic::Corr] {
        assert_eq!(statistic.of(&flat), None);
    }
    let odd = of(&[(1.0, 2.0), (f64::INFINITY, 3.0)]);
    assert!(Statistic::VarPop.of(&odd).is_some_and(f64::is_nan));
    assert_eq!(Statistic::RegrSxx.of(&odd), Some(0.5));
    assert_eq!(Statistic::RegrAvgY.of(&odd), Some(f64::INFINITY));
    assert_eq!(Statistic::Corr.of(&odd), None);
    assert!(Statistic::RegrSlope.of(&odd).is_some_and(f64::is_nan));
    assert!(Statistic::Corr.of(&of(&[(f64::NAN, f64::NAN)])).is_some_and(f64::is_nan));
}
