-- The message in the bot from which a broadcast was approved, or cancelled: it becomes one broadcast, whatever dies meanwhile.

ALTER TABLE broadcasts ADD COLUMN draft uuid UNIQUE;
