-- E-mail: where a buyer wants news by mail, and the line of mails in the outbox.

ALTER TABLE users
    ADD COLUMN email       text CHECK (length(email) BETWEEN 3 AND 254),        -- confirmed by its owner; null: no mail
    ADD COLUMN email_asked text CHECK (length(email_asked) BETWEEN 3 AND 254);  -- not confirmed yet: gets nothing but the link

-- Mails are taken from this line ten at a time; only their drain may read it.
CREATE INDEX outbox_mail ON outbox (run_at) WHERE state = 'owed' AND kind = 'email' AND run_at > '-infinity';
