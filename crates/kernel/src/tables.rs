//! Tables that are written in several files and read as one.

/// A static slice of `Copy` rows out of several.
macro_rules! joined {
    ($(#[$doc:meta])* $vis:vis $name:ident: $row:ty = $first:path $(, $topic:path)* $(,)?) => {
        $(#[$doc])*
        $vis static $name: &[$row] = {
            const TOPICS: &[&[$row]] = &[$first $(, $topic)*];
            const COUNT: usize = {
                let (mut count, mut topic) = (0, 0);
                while topic < TOPICS.len() {
                    count += TOPICS[topic].len();
                    topic += 1;
                }
                count
            };
            static TABLE: [$row; COUNT] = {
                let mut table = [$first[0]; COUNT];
                let (mut at, mut topic) = (0, 0);
                while topic < TOPICS.len() {
                    let mut row = 0;
                    while row < TOPICS[topic].len() {
                        table[at] = TOPICS[topic][row];
                        at += 1;
                        row += 1;
                    }
                    topic += 1;
                }
                table
            };
            &TABLE
        };
    };
}
