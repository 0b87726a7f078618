//! The common parts of every kind of laws: a table, from which come an enum, the choice of the function that tests a law, and a
//! test of each.

use std::{fmt::Display, future::Future};

use crate::{LawResult, Subject};

/// The laws of one kind, such as [`Law`](crate::Law), and the test of each.
pub trait LawSet: Copy + Display + PartialEq + 'static {
    /// Name of the suite in reports.
    const SUITE: &'static str;

    /// `true` if the laws run one at a time in this process, by the machine's clock: these laws count the process's resources.
    const ALONE: bool = false;

    /// The harness that the laws are tested on: a trait object.
    type Harness: ?Sized;

    /// The number, as in the specification (`R1`), and the name.
    fn number_and_name(self) -> (&'static str, &'static str);

    /// Tests the law on a fresh harness.
    fn check(self, harness: &Self::Harness) -> impl Future<Output = LawResult<Self>>;

    /// A report's facts about this harness, and the laws that do not apply to it.
    fn subject(harness: &Self::Harness) -> Subject<'_, Self>;

    /// Removes the rest of the harness's instances or data; called once, after the law.
    fn finish(harness: &Self::Harness) -> impl Future<Output = ()> {
        let _ = harness;
        std::future::ready(())
    }
}

/// Makes an enum of a table of laws.
///
/// A row is `R1 r1_bracket in laws::bracket, "bracket" "the condition";`: number, function that tests it, module, name, text.
#[doc(hidden)]
#[macro_export]
macro_rules! __law_enum {
    (
        [$(#[$doc:meta])* $laws:ident]
        $($law:ident $test:ident in $($module:ident)::+, $name:literal $text:literal;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub enum $laws { $( #[doc = concat!("**", $name, "**: ", $text)] $law, )* }

        impl $laws {
            /// Every law, in order.
            pub const ALL: &'static [Self] = &[$( Self::$law, )*];

            /// The number, as in the specification: `R1`, `W1`.
            pub fn id(self) -> &'static str {
                match self { $( Self::$law => stringify!($law), )* }
            }

            /// The name: a word or two.
            pub fn name(self) -> &'static str {
                match self { $( Self::$law => $name, )* }
            }

            /// The condition that must hold.
            pub fn text(self) -> &'static str {
                match self { $( Self::$law => $text, )* }
            }
        }

        impl std::fmt::Display for $laws {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} {}", self.id(), self.name())
            }
        }

        impl std::str::FromStr for $laws {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let known = Self::ALL.iter().find(|law| law.id().eq_ignore_ascii_case(text.trim()));
                known.copied().ok_or_else(|| format!("'{text}' is not a law: expected one of {:?}", Self::ALL))
            }
        }
    };
}

/// Makes, from a table of laws, a call of the function that tests this one. A future is boxed, since some are large.
#[doc(hidden)]
#[macro_export]
macro_rules! __law_call {
    (
        [$laws:ident, $chosen:expr, $harness:expr]
        $($law:ident $test:ident in $($module:ident)::+, $name:literal $text:literal;)*
    ) => {
        match $chosen { $( $laws::$law => Box::pin($($module)::+::$test($harness)).await, )* }
    };
    (
        [$laws:ident, $chosen:expr, $harness:expr, $effort:expr]
        $($law:ident $test:ident in $($module:ident)::+, $name:literal $text:literal;)*
    ) => {
        match $chosen { $( $laws::$law => $($module)::+::$test($harness, $effort), )* }
    };
}
