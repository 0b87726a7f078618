//! The macro for `with_*` setters.

macro_rules! setters {
    ($type:ty { $($(#[$doc:meta])* $setter:ident: $field:ident: $value:ty;)* }) => {
        impl $type { $(
            $(#[$doc])*
            #[must_use]
            pub fn $setter(mut self, value: impl Into<$value>) -> Self {
                self.$field = value.into();
                self
            }
        )* }
    };
}

pub(crate) use setters;
