//! Many short texts in few large blocks, up to a bound.

/// Bytes of a block; a longer text has one of its own.
const BLOCK_BYTES: usize = 1 << 20;
/// Bytes that come into the processor's cache together, …
const LINE: usize = 64;
/// … and how much of a text is fetched before it is asked for; of a longer one the processor fetches the rest by itself.
const TOUCHED: usize = 512;
/// The most different names, and the most bytes of one: reasons and models are few. What is beyond is no name.
const MAX_NAMES: usize = 100;
const MAX_NAME_BYTES: usize = 200;

/// Where a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    block: u32,
    at: u32,
    bytes: u32,
}

/// The texts of an attempt's rows.
#[derive(Debug)]
pub(crate) struct Arena {
    blocks: Vec<String>,
    /// What the blocks have room for, together.
    bytes: usize,
    max_bytes: usize,
}

impl Arena {
    /// Room for so many bytes.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { blocks: Vec::new(), bytes: 0, max_bytes }
    }

    /// Keeps a text; `None` where there is no room for it.
    pub(crate) fn add(&mut self, text: &str) -> Option<Place> {
        let fits = self.blocks.last().is_some_and(|block| block.capacity() - block.len() >= text.len());
        if !fits {
            let block = BLOCK_BYTES.min(self.max_bytes - self.bytes).max(text.len());
            if self.bytes + block > self.max_bytes {
                return None;
            }
            self.blocks.push(String::with_capacity(block));
            self.bytes += block;
        }
        let number = u32::try_from(self.blocks.len().checked_sub(1)?).ok()?;
        let block = self.blocks.last_mut()?;
        let place =
            Place { block: number, at: u32::try_from(block.len()).ok()?, bytes: u32::try_from(text.len()).ok()? };
        block.push_str(text);
        Some(place)
    }

    /// Looks into a text that was kept, as far as [`TOUCHED`], so that it is at hand soon.
    pub(crate) fn touch(&self, place: Place) -> u8 {
        let block = self.blocks.get(place.block as usize).map_or(&[][..], |block| block.as_bytes());
        let at = place.at as usize;
        let text = block.get(at..at + (place.bytes as usize).min(TOUCHED)).unwrap_or_default();
        text.iter().step_by(LINE).fold(text.last().copied().unwrap_or(0), |all, byte| all ^ byte)
    }

    /// A text that was kept.
    pub(crate) fn get(&self, place: Place) -> &str {
        let block = self.blocks.get(place.block as usize).map_or("", String::as_str);
        let at = place.at as usize;
        block.get(at..at + place.bytes as usize).unwrap_or_default()
    }
}

/// A name that many rows share; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Name(u16);

/// Names, each once.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<Box<str>>);

impl Names {
    /// Keeps a name; `None` where there is no room for it.
    pub(crate) fn add(&mut self, name: Option<&str>) -> Option<Name> {
        let Some(name) = name else { return Some(Name::default()) };
        let place = self.0.iter().position(|known| **known == *name);
        let place = match place {
            Some(place) => place,
            None if self.0.len() < MAX_NAMES && name.len() <= MAX_NAME_BYTES => {
                self.0.push(name.into());
                self.0.len() - 1
            }
            None => return None,
        };
        u16::try_from(place + 1).ok().map(Name)
    }

    /// A name that was kept.
    pub(crate) fn get(&self, name: Name) -> Option<&str> {
        self.0.get(usize::from(name.0).checked_sub(1)?).map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_kept_once_and_only_so_many_of_them() {
        let mut names = Names::default();
        let (stop, length) = (names.add(Some("stop")).unwrap(), names.add(Some("length")).unwrap());
        assert_eq!((names.add(Some("stop")), names.add(None)), (Some(stop), Some(Name(0))));
        assert_eq!((names.get(stop), names.get(length), names.get(Name(0))), (Some("stop"), Some("length"), None));
        assert_eq!(names.add(Some(&"x".repeat(MAX_NAME_BYTES + 1))), None);
        let more = (0..1_000).filter(|n| names.add(Some(&n.to_string())).is_some()).count();
        assert_eq!((more, names.add(Some("stop"))), (MAX_NAMES - 2, Some(stop)));
    }

    proptest! {
        // Blocks are large.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn texts_come_back_as_they_were_and_keep_to_the_bound(sizes in proptest::collection::vec(0usize..900_000, 0..12), max in 0usize..4_000_000) {
            let mut arena = Arena::new(max);
            let texts: Vec<String> = sizes.iter().zip("abcdefghijkl".chars()).map(|(size, letter)| letter.to_string().repeat(*size)).collect();
            let places: Vec<_> = texts.iter().map(|text| arena.add(text)).collect();
            for (text, place) in texts.iter().zip(&places) {
                prop_assert!(place.is_none_or(|place| arena.get(place) == text));
                let _ = place.map(|place| arena.touch(place));
            }
            prop_assert!(arena.bytes <= max && arena.blocks.iter().map(String::capacity).sum::<usize>() == arena.bytes);
            prop_assert!(places.iter().all(Option::is_some) || 2 * sizes.iter().sum::<usize>() + BLOCK_BYTES > max);
        }
    }
}
