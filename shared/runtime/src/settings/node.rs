//! Settings as a source for serde: each error gets the key and the origin of the value it is about, a key that a struct
//! lacks is refused with the nearest one that it has, and text of the environment takes the type that is asked for.

use std::collections::{BTreeMap, btree_map};

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};

use super::error::{Error, Origin};
use super::source::{Leaf, Written};

/// A section, a table within it, or a value.
pub(super) struct Node<'a> {
    key: String,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Table(BTreeMap<String, Node<'a>>),
    Leaf(&'a Leaf),
}

impl<'a> Node<'a> {
    pub(super) fn of_leaves(key: &str, leaves: impl Iterator<Item = (&'a [String], &'a Leaf)>) -> Self {
        let mut table = BTreeMap::new();
        for (path, leaf) in leaves {
            insert(&mut table, key, path, leaf);
        }
        Self { key: key.to_owned(), kind: Kind::Table(table) }
    }

    fn origin(&self) -> Origin {
        match &self.kind {
            Kind::Leaf(leaf) => leaf.origin.clone(),
            Kind::Table(table) => table.values().next().map_or(Origin::Default, Node::origin),
        }
    }
}

fn insert<'a>(table: &mut BTreeMap<String, Node<'a>>, parent: &str, path: &[String], leaf: &'a Leaf) {
    let Some((first, rest)) = path.split_first() else { return };
    let key = format!("{parent}.{first}");
    if rest.is_empty() {
        table.insert(first.clone(), Node { key, kind: Kind::Leaf(leaf) });
        return;
    }
    let node =
        table.entry(first.clone()).or_insert_with(|| Node { key: key.clone(), kind: Kind::Table(BTreeMap::new()) });
    if let Kind::Table(inner) = &mut node.kind {
        insert(inner, &key, rest, leaf);
    }
}

/// Gives an error of serde, which knows no place, the place of the value that it is about.
fn at(key: &str, origin: &Origin, error: Error) -> Error {
    match error {
        Error::Missing { key: inner, reason } if inner.is_empty() => {
            Error::Wrong { key: key.to_owned(), origin: origin.clone(), reason }
        }
        other => other,
    }
}

fn of_toml(error: &toml::de::Error) -> Error {
    de::Error::custom(error.message())
}

/// Text as a TOML value if it is one of a number, a boolean, an array or an inline table; else as a string.
fn guess(text: &str) -> toml::Value {
    let parsed: Option<toml::Table> = toml::from_str(&format!("value = {text}")).ok();
    let value = parsed.and_then(|mut table| if table.len() == 1 { table.remove("value") } else { None });
    value.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

macro_rules! guessing {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.guessed(|value| value.$method(visitor))
        })*
    };
}

macro_rules! textual {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            if let Kind::Leaf(Leaf { value: Written::Text(text), origin }) = &self.kind {
                return visitor.visit_str::<Error>(text).map_err(|error| at(&self.key, origin, error));
            }
            self.deserialize_any(visitor)
        })*
    };
}

impl Node<'_> {
    fn guessed<T>(self, read: impl FnOnce(toml::Value) -> Result<T, toml::de::Error>) -> Result<T, Error> {
        let origin = self.origin();
        let result = match &self.kind {
            Kind::Leaf(Leaf { value: Written::Text(text), .. }) => read(guess(text)).map_err(|error| of_toml(&error)),
            Kind::Leaf(Leaf { value: Written::Toml(value), .. }) => {
                read(value.clone()).map_err(|error| of_toml(&error))
            }
            Kind::Table(_) => Err(de::Error::custom("it is a table, but a single value is wanted")),
        };
        result.map_err(|error| at(&self.key, &origin, error))
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind {
            Kind::Table(table) => visitor.visit_map(Entries { entries: table.into_iter(), value: None }),
            Kind::Leaf(_) => self.guessed(|value| value.deserialize_any(visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if let Kind::Table(table) = &self.kind
            && let Some((name, node)) = table.iter().find(|(name, _)| !fields.contains(&name.as_str()))
        {
            let key = format!("{}.{name}", self.key);
            return Err(Error::unknown(&key, "setting", node.origin(), fields));
        }
        let (key, origin) = (self.key.clone(), self.origin());
        self.deserialize_any(visitor).map_err(|error| match error {
            Error::Missing { key: inner, reason } if inner.is_empty() && origin == Origin::Default => {
                Error::Missing { key, reason }
            }
            other => at(&key, &origin, other),
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if let Kind::Leaf(Leaf { value: Written::Text(text), origin }) = &self.kind {
            let text: de::value::StrDeserializer<'_, Error> = text.as_str().into_deserializer();
            return visitor.visit_enum(text).map_err(|error| at(&self.key, origin, error));
        }
        self.guessed(|value| value.deserialize_enum(name, variants, visitor))
    }

    textual! { deserialize_str deserialize_string deserialize_identifier deserialize_char }

    guessing! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_bytes deserialize_byte_buf
        deserialize_unit deserialize_seq
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

struct Entries<'a> {
    entries: btree_map::IntoIter<String, Node<'a>>,
    value: Option<Node<'a>>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, node)) = self.entries.next() else { return Ok(None) };
        let (key, origin) = (node.key.clone(), node.origin());
        self.value = Some(node);
        let name: de::value::StringDeserializer<Error> = name.into_deserializer();
        seed.deserialize(name).map(Some).map_err(|error| at(&key, &origin, error))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let node = self.value.take().ok_or_else(|| <Error as de::Error>::custom("a value was read before its key"))?;
        let (key, origin) = (node.key.clone(), node.origin());
        seed.deserialize(node).map_err(|error| at(&key, &origin, error))
    }
}
