//! What is stored: resources with a body of JSON, filled up to the size that is asked for.

use std::fmt::Write as _;

use fastrand::Rng;

/// The group of all of them, and their kind.
pub const KIND: (&str, &str) = ("apps", "Deployment");

/// As many namespaces, with as many resources in each.
pub const NAMESPACES: usize = 100;

/// One resource, as a caller has it before a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its body, in memory of its own and of just this size.
    pub body: Vec<u8>,
}

/// So many resources of one size.
#[derive(Clone, Copy, Debug)]
pub struct Objects {
    /// How many.
    pub count: usize,
    /// The size of a body in bytes.
    pub size: usize,
}

impl Objects {
    /// Resource number `n` in one of its versions. Of two versions the bodies differ.
    pub fn get(self, n: usize, version: u64) -> Object {
        self.named(Self::namespace(n), Self::name(n), version)
    }

    /// The same, of any name.
    pub fn named(self, namespace: String, name: String, version: u64) -> Object {
        let mut body = String::with_capacity(self.size);
        let (group, kind) = KIND;
        let written = write!(
            body,
            r#"{{"apiVersion":"{group}/v1","kind":"{kind}","metadata":{{"namespace":"{namespace}","name":"{name}","generation":{version}}},"spec":{{"image":""#
        );
        written.expect("a string takes everything");
        body.extend(std::iter::repeat_n('x', self.size.saturating_sub(body.len() + 3)));
        body.push_str("\"}}");
        assert_eq!((body.len(), body.capacity()), (self.size, self.size), "a body of another size");
        Object { namespace, name, body: body.into_bytes() }
    }

    /// The namespace of resource number `n`, or namespace number `n`.
    pub fn namespace(n: usize) -> String {
        format!("team-{:03}", n % NAMESPACES)
    }

    /// The name of resource number `n`.
    pub fn name(n: usize) -> String {
        format!("web-{:07}", n / NAMESPACES)
    }

    /// The numbers of all of them, in no order.
    pub fn shuffled(self) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..self.count).collect();
        Rng::with_seed(self.count as u64).shuffle(&mut numbers);
        numbers
    }

    /// The number of any of them.
    pub fn any(self, rng: &mut Rng) -> usize {
        rng.usize(..self.count)
    }
}
