//! `shape!` defines a JSON object and how it is made from a message of the protocol. Each field is
//! named once. A field without an expression is the message's field of the same name, as [`Show`]
//! shows it.

use std::collections::BTreeMap;

use uc_api::v1;

/// How a value of the protocol appears in JSON.
pub(crate) trait Show<T> {
    fn show(&self) -> T;
}

macro_rules! unchanged {
    ($($type:ty),*) => {
        $(impl Show<$type> for $type {
            fn show(&self) -> $type {
                self.clone()
            }
        })*
    };
}

unchanged!(bool, f64, i32, i64, u32, u64, String);

macro_rules! null_if_unset {
    ($($type:ty),*) => {
        $(impl Show<Option<$type>> for $type {
            fn show(&self) -> Option<$type> {
                (*self != <$type>::default()).then(|| self.clone())
            }
        })*
    };
}

// The protocol's value for "not set" is null.
null_if_unset!(u32, u64, String);

impl<Wire: Show<Json>, Json> Show<Option<Json>> for Option<Wire> {
    fn show(&self) -> Option<Json> {
        self.as_ref().map(Show::show)
    }
}

impl<Wire: Show<Json>, Json> Show<Vec<Json>> for Vec<Wire> {
    fn show(&self) -> Vec<Json> {
        self.iter().map(Show::show).collect()
    }
}

impl<Wire: Show<Json>, Json> Show<BTreeMap<String, Json>> for BTreeMap<String, Wire> {
    fn show(&self) -> BTreeMap<String, Json> {
        let entries = self.iter().map(|(key, value)| (key.clone(), value.show()));
        entries.collect()
    }
}

impl Show<Vec<String>> for v1::StringList {
    fn show(&self) -> Vec<String> {
        self.values.clone()
    }
}

macro_rules! shape {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident of $message:ty {
            $($(#[$field_attribute:meta])* $field:ident: $type:ty $(= $value:expr)?,)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, serde::Serialize)]
        $visibility struct $name {
            $($(#[$field_attribute])* $field: $type,)*
        }

        impl From<&$message> for $name {
            fn from(message: &$message) -> Self {
                Self {
                    $($field: $crate::view::shape::shape!(@ $message, message, $field: $type $(= $value)?),)*
                }
            }
        }

        impl $crate::view::shape::Show<$name> for $message {
            fn show(&self) -> $name {
                $name::from(self)
            }
        }
    };
    (@ $message:ty, $from:ident, $field:ident: $type:ty) => {
        $crate::view::shape::Show::show(&$from.$field)
    };
    (@ $message:ty, $from:ident, $field:ident: $type:ty = $value:expr) => {{
        let value: fn(&$message) -> $type = $value;
        value($from)
    }};
}

pub(crate) use shape;
