//! Kafka's partitioner for records with a key, so that the memory bus puts a key where Kafka puts it.
//!
//! It is the murmur2 hash of Kafka's Java client (`org.apache.kafka.common.utils.Utils.murmur2`, seed `0x9747b28c`),
//! which librdkafka calls `murmur2_random`.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// The 32-bit murmur2 hash with Kafka's seed. Java shows the same bits as a signed number.
pub fn murmur2(data: &[u8]) -> u32 {
    // A key is never longer than a record, so the cut to 32 bits loses nothing.
    let mut hash = SEED ^ (data.len() as u32);
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = chunk.iter().rev().fold(0u32, |k, byte| (k << 8) | u32::from(*byte));
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0u32, |k, byte| (k << 8) | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a key in a topic of `partitions` (at least 1) partitions.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    // The mask clears the sign bit, so both conversions are exact.
    ((murmur2(key) & 0x7fff_ffff) as i32) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's `UtilsTest.testMurmur2`.
    #[test]
    fn the_hash_is_that_of_the_java_client() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn a_partition_is_never_negative() {
        assert_eq!(partition_of(b"21", 7), ((-973_932_308i32) & 0x7fff_ffff) % 7);
        for key in 0..1000u32 {
            let partition = partition_of(&key.to_be_bytes(), 6);
            assert!((0..6).contains(&partition));
        }
    }
}
