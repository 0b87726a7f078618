//! The macro for `with_*` setters, as in the core.

/// A flag's setter takes no argument, so that no call site has a bare `true`.
macro_rules! setters {
    ($type:ty { $($(#[$doc:meta])* $setter:ident: $field:ident $(: $value:ty)? ;)* }) => {
        impl $type { $( setters!(@one $(#[$doc])* $setter $field $($value)?); )* }
    };
    (@one $(#[$doc:meta])* $setter:ident $field:ident $value:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $setter(mut self, value: impl Into<$value>) -> Self {
            self.$field = value.into();
            self
        }
    };
    (@one $(#[$doc:meta])* $setter:ident $field:ident) => {
        $(#[$doc])*
        #[must_use]
        pub fn $setter(mut self) -> Self {
            self.$field = true;
            self
        }
    };
}

pub(crate) use setters;
