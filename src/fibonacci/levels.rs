//! The levels of a transform whose length is a power of two.
//!
//! Each halves polynomials modulo x²ʰ − r² into those modulo xʰ − r and xʰ + r, down to single
//! points. The r of all these halvings are the same for all lengths if they are taken in the order
//! in which the halves lie side by side ("bit-reversed"): one table, which grows by doubling. Two
//! levels are done at once, which saves half of the loads and stores.

use super::field::{INVERSE_ROOTS, ONE, P, ROOTS, halved, product, reduced, signed_product};

/// So many points stay in the first-level cache (32 KiB) while all their levels are done.
const CACHED: usize = 4096;

/// What transforms of all lengths share. In Montgomery form.
pub(super) struct Roots {
    /// r for each part that is halved. \[0\] is for x²ʰ − 1; \[2i\] and \[2i + 1\] are for the
    /// halves of part i.
    forward: Vec<u64>,
    /// 1 / r.
    inverse: Vec<u64>,
}

impl Roots {
    pub(super) fn new() -> Self {
        Self {
            forward: vec![ONE],
            inverse: vec![ONE],
        }
    }

    /// Makes the table long enough for so many points.
    pub(super) fn reach(&mut self, points: usize) {
        while 2 * self.forward.len() < points {
            let k = self.forward.len().trailing_zeros() as usize + 2;
            extend(&mut self.forward, ROOTS[k]);
            extend(&mut self.inverse, INVERSE_ROOTS[k]);
        }
    }

    /// r of part number `node`.
    pub(super) fn of(&self, node: usize) -> u64 {
        self.forward[node]
    }

    /// From `data`, part number `node` of its length, down to points. Below 4 P before and after.
    pub(super) fn split(&self, data: &mut [u64], node: usize) {
        let mut size = data.len();
        while size > CACHED {
            self.split_level(data, node, size);
            size /= 4;
        }
        let parts = data.len() / size;
        for (part, data) in data.chunks_exact_mut(size).enumerate() {
            let node = node * parts + part;
            let mut size = size;
            while size >= 4 {
                self.split_level(data, node, size);
                size /= 4;
            }
            if size == 2 {
                self.split_pairs(data, node);
            }
        }
    }

    /// From points up to `data`, times the number of points. Below 2 P before and after.
    pub(super) fn join(&self, data: &mut [u64], node: usize) {
        let mut chunk = data.len();
        while chunk > CACHED {
            chunk /= 4;
        }
        let parts = data.len() / chunk;
        for (part, data) in data.chunks_exact_mut(chunk).enumerate() {
            let node = node * parts + part;
            let mut size = if chunk.ilog2().is_multiple_of(2) {
                4
            } else {
                8
            };
            if size == 8 {
                self.join_pairs(data, node);
            }
            while size <= chunk {
                self.join_level(data, node, size);
                size *= 4;
            }
        }
        let mut size = 4 * chunk;
        while size <= data.len() {
            self.join_level(data, node, size);
            size *= 4;
        }
    }

    /// Two levels: parts of `size` into quarters. Below 4 P before and after.
    fn split_level(&self, data: &mut [u64], node: usize, size: usize) {
        let node = node * (data.len() / size);
        let roots = self.forward[node..].iter().zip(pairs(&self.forward, node));
        match size {
            4 => each::<4>(data, roots, split_in_four),
            16 => each::<16>(data, roots, split_in_four),
            _ => {
                for (part, (&r, rs)) in data.chunks_exact_mut(size).zip(roots) {
                    split_in_four(part, r, rs);
                }
            }
        }
    }

    /// Two levels: quarters into parts of `size`. Below 2 P before and after.
    fn join_level(&self, data: &mut [u64], node: usize, size: usize) {
        let node = node * (data.len() / size);
        let roots = self.inverse[node..].iter().zip(pairs(&self.inverse, node));
        match size {
            4 => each::<4>(data, roots, join_four),
            16 => each::<16>(data, roots, join_four),
            _ => {
                for (part, (&r, rs)) in data.chunks_exact_mut(size).zip(roots) {
                    join_four(part, r, rs);
                }
            }
        }
    }

    fn split_pairs(&self, data: &mut [u64], node: usize) {
        let roots = &self.forward[node * (data.len() / 2)..];
        for (part, &r) in data.as_chunks_mut::<2>().0.iter_mut().zip(roots) {
            *part = split_two(part[0], part[1], r).into();
        }
    }

    fn join_pairs(&self, data: &mut [u64], node: usize) {
        let roots = &self.inverse[node * (data.len() / 2)..];
        for (part, &r) in data.as_chunks_mut::<2>().0.iter_mut().zip(roots) {
            *part = join_two(part[0], part[1], r).into();
        }
    }
}

/// Doubles a table: all of it once more, times the next root.
fn extend(table: &mut Vec<u64>, next: u64) {
    for i in 0..table.len() {
        table.push(reduced(product(table[i], next)));
    }
}

/// The roots of the halves of the parts from number `node` on.
fn pairs(roots: &[u64], node: usize) -> &[[u64; 2]] {
    roots[2 * node..].as_chunks().0
}

/// For parts so small that a loop of constant length is unrolled.
#[inline]
fn each<'a, const SIZE: usize>(
    data: &mut [u64],
    roots: impl Iterator<Item = (&'a u64, &'a [u64; 2])>,
    step: impl Fn(&mut [u64], u64, &[u64; 2]),
) {
    for (part, (&r, rs)) in data.as_chunks_mut::<SIZE>().0.iter_mut().zip(roots) {
        step(part, r, rs);
    }
}

#[inline]
fn split_in_four(part: &mut [u64], r: u64, rs: &[u64; 2]) {
    for (a, b, c, d) in quarters(part) {
        let (first, third) = split_two(*a, *c, r);
        let (second, fourth) = split_two(*b, *d, r);
        (*a, *b) = split_two(first, second, rs[0]);
        (*c, *d) = split_two(third, fourth, rs[1]);
    }
}

#[inline]
fn join_four(part: &mut [u64], r: u64, rs: &[u64; 2]) {
    for (a, b, c, d) in quarters(part) {
        let (first, second) = join_two(*a, *b, rs[0]);
        let (third, fourth) = join_two(*c, *d, rs[1]);
        (*a, *c) = join_two(first, third, r);
        (*b, *d) = join_two(second, fourth, r);
    }
}

/// The same place of each quarter, place by place.
#[inline]
fn quarters(part: &mut [u64]) -> impl Iterator<Item = (&mut u64, &mut u64, &mut u64, &mut u64)> {
    let quarter = part.len() / 4;
    let (a, rest) = part.split_at_mut(quarter);
    let (b, rest) = rest.split_at_mut(quarter);
    let (c, d) = rest.split_at_mut(quarter);
    let pairs = a.iter_mut().zip(b).zip(c.iter_mut().zip(d));
    pairs.map(|((a, b), (c, d))| (a, b, c, d))
}

/// x + r y and x − r y. Below 4 P before and after.
#[inline]
fn split_two(x: u64, y: u64, r: u64) -> (u64, u64) {
    let middle = halved(x) + P;
    let product = signed_product(y, r);
    (middle.wrapping_add(product), middle.wrapping_sub(product))
}

/// x + y and (x − y) r. Below 2 P before and after.
#[inline]
fn join_two(x: u64, y: u64, r: u64) -> (u64, u64) {
    (halved(x + y), product(x + 2 * P - y, r))
}
