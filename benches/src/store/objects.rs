//! The stored resources: each has a JSON body, padded to the wanted size.

use std::fmt::Write as _;

use fastrand::Rng;

/// Group and kind of all resources.
pub const KIND: (&str, &str) = ("apps", "Deployment");

/// Number of namespaces; the resources are spread evenly over them.
pub const NAMESPACES: usize = 100;

/// A resource that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its body; length and capacity are equal, so that the memory figures count no spare room.
    pub body: Vec<u8>,
}

/// A set of numbered resources with bodies of one size.
#[derive(Clone, Copy, Debug)]
pub struct Objects {
    /// Number of resources.
    pub count: usize,
    /// Size of each body in bytes.
    pub size: usize,
}

impl Objects {
    /// Resource number `n`; bodies of different versions differ.
    pub fn get(self, n: usize, version: u64) -> Object {
        self.named(Self::namespace(n), Self::name(n), version)
    }

    /// A resource with this namespace and name; bodies of different versions differ.
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

    /// The namespace of resource number `n`, which is namespace number `n` modulo [`NAMESPACES`].
    pub fn namespace(n: usize) -> String {
        format!("team-{:03}", n % NAMESPACES)
    }

    /// The name of resource number `n`.
    pub fn name(n: usize) -> String {
        format!("web-{:07}", n / NAMESPACES)
    }

    /// The numbers of all resources, shuffled; the order is the same in each run.
    pub fn shuffled(self) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..self.count).collect();
        Rng::with_seed(self.count as u64).shuffle(&mut numbers);
        numbers
    }

    /// The number of a random resource.
    pub fn any(self, rng: &mut Rng) -> usize {
        rng.usize(..self.count)
    }
}
