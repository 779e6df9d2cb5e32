-- Search: what the catalog's search looks in.
-- Words are runs of letters and digits in their compatible spelling (NFKC, so the database is in UTF8), and ё is е: a
-- query's words are made the same way (app/domain/catalog.py).
-- 'simple' has the words as they are, for prefixes. 'russian' has the stems of Russian words and of English ones,
-- 'english' those of words in other Latin letters too. A stored column: adding it rewrites the table once.

ALTER TABLE products ADD COLUMN search tsvector NOT NULL GENERATED ALWAYS AS (
    setweight(to_tsvector('pg_catalog.simple', translate(regexp_replace(normalize(title, NFKC), '[^[:alnum:]]+', ' ', 'g'), 'ёЁ', 'еЕ'))
           || to_tsvector('pg_catalog.english', translate(regexp_replace(normalize(title, NFKC), '[^[:alnum:]]+', ' ', 'g'), 'ёЁ', 'еЕ'))
           || to_tsvector('pg_catalog.russian', translate(regexp_replace(normalize(title, NFKC), '[^[:alnum:]]+', ' ', 'g'), 'ёЁ', 'еЕ')), 'A')
    || setweight(to_tsvector('pg_catalog.simple', translate(regexp_replace(normalize(category, NFKC), '[^[:alnum:]]+', ' ', 'g'), 'ёЁ', 'еЕ'))
           || to_tsvector('pg_catalog.english', translate(regexp_replace(normalize(category, NFKC), '[^[:alnum:]]+', ' ', 'g'), 'ёЁ', 'еЕ'))
           || to_tsvector('pg_catalog.russian', translate(regexp_replace(normalize(category, NFKC), '[^[:alnum:]]+', ' ', 'g'), 'ёЁ', 'еЕ')), 'B')
    || setweight(to_tsvector('pg_catalog.simple', translate(regexp_replace(normalize(description, NFKC), '[^[:alnum:]]+', ' ', 'g'), 'ёЁ', 'еЕ'))
           || to_tsvector('pg_catalog.english', translate(regexp_replace(normalize(description, NFKC), '[^[:alnum:]]+', ' ', 'g'), 'ёЁ', 'еЕ'))
           || to_tsvector('pg_catalog.russian', translate(regexp_replace(normalize(description, NFKC), '[^[:alnum:]]+', ' ', 'g'), 'ёЁ', 'еЕ')), 'C')
) STORED;
-- Without a list of pending entries: products change seldom, and every search would read it.
CREATE INDEX products_search ON products USING gin (search) WITH (fastupdate = off) WHERE active;

-- Typing errors are forgiven where the server has pg_trgm and lets us have it; search works without.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
        CREATE INDEX products_likeness ON products USING gist (translate(title, 'ёЁ', 'еЕ') gist_trgm_ops) WHERE active;
    END IF;
EXCEPTION WHEN insufficient_privilege OR undefined_object THEN  -- not ours to create, or in a schema that we do not see
    RAISE NOTICE 'no likeness: %', SQLERRM;
END $$;
